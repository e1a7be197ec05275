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


def milliseconds(times: dict[str, float] | None) -> str:
    """Times of passes, in their order: forward / backward."""
    return " / ".join(f"{seconds * 1e3:.3g}" for seconds in times.values()) if times else "-"


def passes(row: dict[str, Any]) -> dict[str, float]:
    """Those times of a row that are of passes."""
    return {name: row[name] for name in ("forward", "forward_backward") if row.get(name) is not None}


def against_dense(found: dict[str, Any]) -> str:
    """Each shape of ``benchmarks/tiled_attention.py``: ours, what it is compared with, and what no kernel can beat."""
    ways = {
        found["backend"]: "fovea",
        "masked": "dense, masked",
        "dense": "dense, no mask",
        "flex": "FlexAttention, compiled",
        "floor": "floor",
    }
    shown = {way: name for way, name in ways.items() if any(way in row for row in found["shapes"])}
    lines = [(row["name"], *(milliseconds(passes(row.get(way, {}))) for way in shown)) for row in found["shapes"]]
    about = found["about"]
    where = f"{about['cpu']}, {about['threads']} threads, PyTorch {about['torch']}"
    return (
        f"Milliseconds in float32, forward / forward and backward, on {where}. The floor is the\n"
        f"exact work at the rate of a large matrix product in the same run.\n\n"
        f"{table(('shape', *shown.values()), lines)}"
    )


def on_this_cpu(found: dict[str, Any]) -> str:
    """Each shape of ``benchmarks/cpu_attention.py``: the native kernels beside what ran in the same run."""
    machine = found["machine"]
    where = f"{machine['cpu']} ({machine['isa']}), {machine['threads']} threads, PyTorch {machine['torch']}"
    return (
        f"Milliseconds in float32, forward / backward, on {where}; load {machine['load']:.1f} when it\n"
        f"began. The floor is the exact work of the forward pass at the rate of a large matrix product.\n\n"
        f"{shapes(found)}"
    )


def shapes(found: dict[str, Any]) -> str:
    """Each shape of ``benchmarks/cpu_attention.py``: milliseconds of every contestant, forward / backward."""
    ways = tuple(dict.fromkeys(way for row in found["shapes"] for way in row["seconds"]))
    rows = [
        (row["shape"], f"{row['floor'] * 1e3:.3g}", *(milliseconds(row["seconds"].get(way)) for way in ways))
        for row in found["shapes"]
    ]
    return table(("shape", "floor", *ways), rows)


def overlapping(found: dict[str, Any]) -> str:
    """What ``benchmarks/ocab_memory.py`` measured, in one sentence."""
    ways = found["measured"]["forward"]
    ours, theirs = (ways[way]["peak_bytes"] / 2**20 for way in ("operator", "unfold"))
    side = found["problem"]["size"]
    return (
        f"HAT's overlapping attention on {side}x{side} tokens takes {ours:.0f} MiB through the operator; unfolding\n"
        f"the windows, as published, takes {theirs:.0f} MiB."
    )


SUMMARIES = {"cpu_attention": on_this_cpu, "tiled_attention": against_dense, "ocab_memory": overlapping}


def summary() -> str:
    """The README's section."""
    found = results()
    return "\n\n".join(say(found[name]) for name, say in SUMMARIES.items() if name in found) or NOT_YET


def page() -> str:
    """Every result file, whole."""
    sections = [section(name, found) for name, found in results().items()]
    return "\n\n".join([INTRODUCTION.strip(), *(sections or [NOT_YET])])
