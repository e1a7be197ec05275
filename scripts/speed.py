"""How fast: what the programs in ``benchmarks/`` measured, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tables import results, table

NOT_YET = "Not measured yet."
INTRODUCTION = """
# Benchmarks

Each figure was written by a run. The files are in `benchmarks/results`, the code beside them.
"""


def cell(value: Any) -> str:
    """A value as a table shows it: numbers with three digits, lists as shapes."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return "x".join(map(cell, value))
    return str(value).replace("|", "\\|")


def is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def leaves(found: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of nested dictionaries under the names that lead to it; a list of dictionaries is one value."""
    if isinstance(found, dict):
        for name, inner in found.items():
            yield from leaves(inner, (*names, name.replace("_", " ")))
    else:
        yield names, found


def rows(found: list[dict[str, Any]]) -> str:
    """Measurements as one table, with a column for each name that any of them has."""
    flat = [{", ".join(names): value for names, value in leaves(row)} for row in found]
    names = tuple(dict.fromkeys(name for row in flat for name in row))
    return table(names, [tuple(cell(row.get(name, "")) for name in names) for row in flat])


def section(name: str, found: Any) -> str:
    """One result file: its single values, then its tables."""
    values = list(leaves(found if isinstance(found, dict) else {"results": found}))
    lines = [f"* {', '.join(names)}: {cell(value)}" for names, value in values if not is_table(value)]
    parts = [f"## {name.replace('_', ' ')}", "\n".join(lines)]
    for names, value in values:
        if is_table(value):
            parts += [f"### {', '.join(names)}", rows(value)]
    return "\n\n".join(filter(None, parts))


def summary() -> str:
    """The README's table."""
    return NOT_YET


def page() -> str:
    """Every result file, whole."""
    sections = [section(name, found) for name, found in results().items()]
    return "\n\n".join([INTRODUCTION.strip(), *(sections or [NOT_YET])])
