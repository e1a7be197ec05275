"""``fovea plan`` and ``fovea bench``: what attention under a pattern costs, as predicted and as measured."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fovea.cli import words
from fovea.cli.output import say, seconds, show, show_json, show_table

if TYPE_CHECKING:
    import torch


class Dtype(StrEnum):
    float64 = "float64"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Heads = Annotated[int, typer.Option(min=1, help="Number of heads.")]
HeadDim = Annotated[int, typer.Option(min=1, help="Width of a head.")]
Batch = Annotated[int, typer.Option(min=1, help="Batch size.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Type of the numbers.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")]
Grad = Annotated[bool, typer.Option("--grad", help="With the backward pass.")]

PROBLEMS = (("neighborhood:window=13x13", "64x64"), ("window:size=8x8", "64x64"), ("sliding:left=255", "8192"))
"""What ``fovea bench`` compares when no pattern is given."""


def register(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(bench)


def plan(
    pattern: words.PatternText,
    grid: words.GridText,
    heads: Heads = 4,
    head_dim: HeadDim = 64,
    batch: Batch = 1,
    dtype: DtypeOption = Dtype.float32,
    device: Device = "cpu",
    grad: Annotated[bool, typer.Option("--grad", help="Plan the backward pass.")] = False,
    json: words.Json = False,
) -> None:
    """Which backend would compute a pattern, what each would do, and what was refused and why.

    \b
    Example:
      fovea plan neighborhood:window=13x13,stride=4 --grid 64x64 --heads 4 --head-dim 32
    """
    sizes = words.grid(grid)
    words.pattern(pattern, sizes)
    import fovea
    from fovea.kernels import calibration

    if not any(calibration.folder().glob("prices-*.json")):
        say("measuring how fast this machine is with each backend; this is remembered (fovea cache show)")
    with words.usage():
        made = fovea.plan(
            pattern,
            grid=sizes,
            batch=batch,
            heads=heads,
            head_dim=head_dim,
            dtype=_dtype(dtype),
            device=_device(device),
            grad=grad,
        )
    if json:
        show_json(made.to_dict())
    else:
        print(made.explain())


def bench(
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="A pattern; a few common ones if not given.")
    ] = None,
    grid: Annotated[str | None, typer.Option("--grid", help="Shape of the tokens: 8192, 64x64 or 16x24x24.")] = None,
    heads: Heads = 4,
    head_dim: HeadDim = 64,
    batch: Batch = 1,
    dtype: DtypeOption = Dtype.float32,
    device: Device = "cpu",
    grad: Grad = False,
    budget: Annotated[float, typer.Option("--seconds", min=0.01, help="How long to measure each way.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Also write the numbers here.")
    ] = None,
    json: words.Json = False,
) -> None:
    """Measure every backend that runs here on a pattern, beside dense attention with and without a mask.

    A quick look at this machine: the median of repeated calls after one that warms up. Each result is compared with
    the reference where that is small enough.

    \b
    Examples:
      fovea bench
      fovea bench neighborhood:window=7x7 --grid 56x56 --grad
    """
    from fovea.errors import UsageError

    if (pattern is None) != (grid is None):
        raise UsageError(
            "a pattern needs a grid and a grid a pattern: fovea bench neighborhood:window=7x7 --grid 56x56"
        )
    if out is not None:
        words.writable(out, suffixes=[".json"])
    problems = [(pattern, grid)] if pattern is not None and grid is not None else PROBLEMS
    for text, shape in problems:
        words.pattern(text, words.grid(shape))
    from fovea.cli.measure import compare
    from fovea.tasks.run import versions

    where = _device(device)
    results = []
    for text, shape in problems:
        say(f"measuring {text} on {shape}")
        result = compare(
            text, words.grid(shape), batch, heads, head_dim, _dtype(dtype), where, grad=grad, seconds=budget
        )
        results.append(result)
        if not json:
            _show(result)
    report = {"versions": versions(), "results": results}
    if json:
        show_json(report)
    if out is not None:
        from json import dumps

        out.write_text(dumps(report, indent=2) + "\n")
        say(f"written to {out}")


def _show(result: dict[str, Any]) -> None:
    fastest = min((way["seconds"] for way in result["ways"] if way["seconds"] is not None), default=None)
    rows = []
    for way in result["ways"]:
        if way["seconds"] is None:
            rows.append((way["name"], "-", "-", "-", way["why_not"]))
        else:
            error = "-" if way["error"] is None else f"{way['error']:.1e}"
            rows.append((way["name"], seconds(way["seconds"]), f"{way['seconds'] / fastest:.2f}x", error, way["note"]))
    show_table(
        ("way", "time", "of the fastest", "error", ""),
        rows,
        right=("time", "of the fastest", "error"),
        title=result["title"],
    )
    show(f"{result['pairs']:,} of {result['all_pairs']:,} pairs a head ({result['pairs'] / result['all_pairs']:.1%})\n")


def _dtype(name: Dtype) -> torch.dtype:
    import torch

    return getattr(torch, name.value)


def _device(name: str) -> torch.device:
    """The device, which must be there."""
    import torch

    from fovea.errors import UsageError

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UsageError(f"--device {name!r} is not available here: {reason}") from error
    return device
