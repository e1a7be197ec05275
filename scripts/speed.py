"""How fast: summaries of what ``benchmarks/`` measured."""

from __future__ import annotations

import tables


def summary() -> str:
    """The README's table: each measured problem, ours against what it was compared with in the same run."""
    return "Not measured yet." if not tables.results() else ""


def page() -> str:
    return f"# Benchmarks\n\n{summary()}\n"
