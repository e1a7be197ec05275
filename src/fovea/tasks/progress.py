"""A bar on the terminal's error stream for whoever waits."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """What moves a bar: by ``steps``, showing the latest of each number."""

    def __call__(self, values: Mapping[str, float] | None = None, *, steps: int = 1) -> None: ...


@contextmanager
def bar(title: str, total: int, *, done: int = 0, quiet: bool = False) -> Iterator[Advance]:
    """A bar with steps, time gone and left, and the latest numbers; yields what to call after each step."""
    if quiet:
        yield lambda values=None, *, steps=1: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        task = progress.add_task(title, total=total, completed=done, values="")

        shown: dict[str, float] = {}

        def advance(values: Mapping[str, float] | None = None, *, steps: int = 1) -> None:
            progress.update(task, advance=steps)
            shown.update(values or {})
            progress.update(task, values=words(shown))

        yield advance


def words(values: Mapping[str, float]) -> str:
    """``loss 0.0213 psnr 33.41``."""
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())
