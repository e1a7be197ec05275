"""``fovea convert-llm``: a finished language model, given constant memory or another pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fovea.cli import words
from fovea.cli.output import SETTINGS, show_json, show_numbers


def register(app: typer.Typer) -> None:
    app.command("convert-llm")(convert_llm)


def convert_llm(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a Llama- or Qwen-class model.")],
    output: Annotated[Path, typer.Option("--output", "--out", "-o", metavar="FOLDER", help="Folder to write.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings to change, such as window, chunk, optimisation.steps."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Text to learn from: a file, or a folder of .txt and .jsonl.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted conversion.")] = False,
    json: words.Json = False,
) -> None:
    """Give a language model a window with sinks and a memory that learns while reading (AllMem), or another pattern.

    The model's own files are copied as they are; plan and memories stand beside them. Only the memories learn, by
    distilling the model as it was.

    \b
    Examples:
      fovea convert-llm Qwen3-0.6B -o Qwen3-0.6B-allmem --data texts/
      fovea convert-llm MODEL -o OUT --data a.txt window=64 windows=16,64 chunk=16 chunks=8,32 length=512
      fovea convert-llm MODEL -o OUT pattern=blocks:size=256,terms=local(5)+sink(1)+powers
    """
    from fovea.steer.conversion_config import Conversion
    from fovea.tasks import configuration

    words.existing(model, "model")
    with words.usage():
        config = configuration.override(Conversion(), settings or [])
    from fovea.steer.conversion import convert

    measured = convert(model, output, data, config, resume=resume, quiet=SETTINGS.quiet)
    if json:
        show_json({"folder": str(output), **measured})
    else:
        if measured:
            show_numbers(measured, "on held-out text, against the model as it was")
        print(output)
