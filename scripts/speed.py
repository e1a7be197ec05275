"""How fast: summaries of what ``benchmarks/`` measured."""

from __future__ import annotations

import tables


def summary() -> str:
    """The README's table: each measured problem, ours against what it was compared with in the same run."""
    results = tables.results()
    if not results:
        return "Not measured yet."
    return "Not measured yet."
