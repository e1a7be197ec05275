"""Text goes on: files of prompts in, files of what the model makes of them out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea import checkpoints
from fovea.data.text import tokenizer as tokenizers
from fovea.data.text.documents import PLAIN, read
from fovea.data.text.tokenizer import Bytes, Tokenizer
from fovea.errors import UsageError, UserError
from fovea.models.language import LanguageModel
from fovea.tasks import configuration
from fovea.tasks.language.generation import Sampling, stream
from fovea.tasks.language.sources import TOKENIZER
from fovea.tasks.run import replacing

BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Writing:
    """How a text goes on.

    Attributes:
        new_tokens: the most that are written.
        temperature, top_k, top_p, seed: see :class:`Sampling`.
        stop: text that ends the writing, and is not written; the end of a document always does.
    """

    new_tokens: int = 200
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    stop: str = ""

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, self.seed)


@dataclass(frozen=True)
class Writer:
    """A model and the tokenizer that it learned with."""

    network: LanguageModel
    tokenizer: Tokenizer

    def stops(self, writing: Writing) -> list[list[int]]:
        """The tokens that end a text."""
        said = self.tokenizer.encode(writing.stop).tolist() if writing.stop else []
        return [[self.tokenizer.end], *([said] if said else [])]


def load(checkpoint: Path | None) -> Writer:
    """A trained model with its tokenizer; ``UserError`` where either is missing."""
    if checkpoint is None:
        raise UserError("no weights come with this system; name a checkpoint of yours with --checkpoint")
    found = checkpoints.load(checkpoint)
    if not isinstance(found.network, LanguageModel) or "tokenizer" not in found.extra:
        raise UserError(f"{checkpoint} holds no language model that fovea trained on text")
    name, folder = found.extra["tokenizer"], checkpoint if checkpoint.is_dir() else checkpoint.parent
    tokenizer = tokenizers.load(name if name == Bytes.name else folder / TOKENIZER)
    if tokenizer.name != name:
        raise UserError(f"{folder / TOKENIZER} is {tokenizer.name}; the checkpoint was trained with {name}")
    return Writer(found.network, tokenizer)


def predict(
    writer: Writer, inputs: Sequence[Path], output: Path, options: Mapping[str, Any], *, quiet: bool = False
) -> list[Path]:
    """Go on with the text of each file, all at once; ``output`` is a file for one input, else a folder.

    Args:
        options: changes of :class:`Writing`.
        quiet: do not show a single text while it is written.
    """
    writing = configuration.override(Writing(), [f"{name}={value}" for name, value in options.items()])
    files = [file for path in inputs for file in (_inside(path) if path.is_dir() else [path])]
    targets = _targets(files, output)
    texts = ["".join(read(file)) for file in files]
    prompts = [writer.tokenizer.encode(text).tolist() for text in texts]
    for file, prompt in zip(files, prompts, strict=True):
        if not prompt:
            raise UserError(f"{file} is empty; a prompt must have at least one token")
    written: list[list[int]] = [[] for _ in prompts]
    shown = ""
    for step in stream(
        writer.network, prompts, writing.new_tokens, sampling=writing.sampling, stop=writer.stops(writing)
    ):
        for row, token in zip(written, step, strict=True):
            row += [] if token is None else [token]
        if len(files) == 1 and not quiet:
            text = writer.tokenizer.decode(written[0])
            if not text.endswith(BROKEN):  # a character whose last bytes are still to come
                print(text[len(shown) :], end="", file=sys.stderr, flush=True)
                shown = text
    if shown:
        print(file=sys.stderr)
    for target, text, tokens in zip(targets, texts, written, strict=True):
        ends = [len(stop) for stop in writer.stops(writing) if tokens[-len(stop) :] == stop]
        kept = tokens[: len(tokens) - max(ends, default=0)]
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            temporary.write_text(text + writer.tokenizer.decode(kept), encoding="utf-8", newline="")
    return targets


def _inside(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PLAIN)
    if not found:
        raise UserError(f"{folder} holds no text ({', '.join(PLAIN)})")
    return found


def _targets(files: Sequence[Path], output: Path) -> list[Path]:
    for file in files:
        if file.suffix.lower() not in PLAIN:
            raise UsageError(f"input {file}: it must end in {', '.join(PLAIN)}")
    if len(files) == 1 and not output.is_dir():
        targets = [output]
    elif output.is_file():
        raise UsageError(f"output {output} is a file; {len(files)} inputs need a folder")
    else:
        targets = [output / f"{file.stem}-continued{file.suffix}" for file in files]
    if len(set(targets)) < len(targets):
        raise UsageError("two inputs have the same name and would be written to the same file")
    for file, target in zip(files, targets, strict=True):
        if target.exists() and target.samefile(file):
            raise UsageError(f"output {target} is the input itself; choose another name")
    return targets
