"""What commands print: tables and text for people, JSON for programs; on the error stream, what is only said."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Settings:
    """The global options of this call."""

    quiet: bool = False
    debug: bool = False


SETTINGS = Settings()


@cache
def console() -> Console:
    """The terminal that standard output is; where it is none, plain lines are printed instead."""
    from rich.console import Console

    class Pipeable(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Pipeable(highlight=False)


def say(text: str) -> None:
    """A line about what is happening, on standard error; nothing with ``--quiet``."""
    if not SETTINGS.quiet:
        print(text, file=sys.stderr, flush=True)


def show(text: str, *, heading: str = "") -> None:
    """Text that is the command's result, behind a heading in bold."""
    if not sys.stdout.isatty():
        print(heading + text)
        return
    from rich.text import Text

    console().print(Text.assemble((heading, "bold"), text))


def show_json(value: Any) -> None:
    """The command's result for programs; numbers that are not finite become the words ``inf`` and ``nan``."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = (), title: str | None = None
) -> None:
    """A table; columns in ``right`` hold numbers. Where output is no terminal: plain lines, as wide as they need."""
    rows, right = list(rows), set(right)
    if not sys.stdout.isatty():
        _show_plain(columns, rows, right, title)
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table, markup=False)


def _show_plain(columns: Sequence[str], rows: Sequence[Sequence[str]], right: set[str], title: str | None) -> None:
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    if title is not None:
        print(title)
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())
    print()


def show_numbers(values: Mapping[str, Any], title: str | None = None) -> None:
    """Names and what was measured."""
    show_table(
        ("measured", "value"), [(name, number(value)) for name, value in values.items()], right=("value",), title=title
    )


def show_measured(values: Mapping[str, Any]) -> None:
    """What a claim measured: single values in a line, ways that were compared as rows of a table."""
    facts = [f"{name} {number(value)}" for name, value in values.items() if not isinstance(value, Mapping)]
    ways = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    if facts:
        print(f"    {', '.join(facts)}")
    if ways:
        columns = list(dict.fromkeys(key for way in ways.values() for key in way))
        rows = [[f"    {name}", *(number(way.get(key, "")) for key in columns)] for name, way in ways.items()]
        show_table(["", *columns], rows, right=columns)


def number(value: Any) -> str:
    """A number as people read it; for several seeds the mean and, after the sign, the standard deviation."""
    if isinstance(value, Mapping) and {"mean", "deviation"} <= set(value):
        return f"{number(value['mean'])} \N{PLUS-MINUS SIGN} {value['deviation']:.2g}"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3e}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"
