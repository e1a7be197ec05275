"""Writes the measured tables of ``benchmarks/NATIVE.md`` anew, between their markers, from ``cpu_attention.json`` and
``cpu_versions.json`` of ``benchmarks/results``.

    python scripts/native.py
"""

from __future__ import annotations

import json
import re
from typing import Any

from speed import NOT_YET
from tables import RESULTS, ROOT, table

PAGE = ROOT / "benchmarks" / "NATIVE.md"


def milliseconds(times: dict[str, float] | None) -> str:
    """Forward / backward."""
    return " / ".join(f"{seconds * 1e3:.3g}" for seconds in times.values()) if times else "-"


def about(found: dict[str, Any]) -> str:
    """The machine and the conditions of the run."""
    machine = found["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['isa']}, Python "
        f"{machine['python']}, PyTorch {machine['torch']}, commit {machine['commit'][:10]}; load average "
        f"{machine['load']:.1f} when it began and {machine['load_at_end']:.1f} when it ended."
    )


def bars(found: dict[str, Any]) -> str:
    """What was asked, and what was measured."""
    rows = [
        (row["figure"], f"{row['measured']:.3g}", row["bar"], "yes" if row["reached"] else "no")
        for row in found["bars"]
    ]
    return table(("figure", "measured", "bar", "reached"), rows)


def shapes(found: dict[str, Any]) -> str:
    """Each shape: milliseconds of every contestant, forward / backward."""
    ways = tuple(dict.fromkeys(way for row in found["shapes"] for way in row["seconds"]))
    rows = [
        (row["shape"], f"{row['floor'] * 1e3:.3g}", *(milliseconds(row["seconds"].get(way)) for way in ways))
        for row in found["shapes"]
    ]
    return table(("shape", "floor", *ways), rows)


def ratios(found: dict[str, Any]) -> str:
    """Each shape: our shares of the floor and what the passes, dtypes and threads are to each other."""
    names = {
        "share_of_floor": "share of the floor",
        "share_of_floor_one_thread": "with one thread",
        "two_threads": "one thread / all",
        "backward_over_forward": "backward / forward",
        "bfloat16_over_float32": "bfloat16 / float32",
        "flex_setup": "FlexAttention's set-up, s",
        "load": "load",
    }
    rows = [(row["shape"], *(f"{row[name]:.2f}" if name in row else "-" for name in names)) for row in found["shapes"]]
    return table(("shape", *names.values()), rows)


def decoding(found: dict[str, Any]) -> str:
    """One query against a long cache, in microseconds."""
    return table(
        ("one query against 65536 tokens, 8 heads of 64", "microseconds"),
        [(name, f"{seconds * 1e6:.0f}") for name, seconds in found["decode"]["seconds"].items()],
    )


def growth(found: dict[str, Any]) -> str:
    """Window 7 on growing grids."""
    rows = [
        (f"{row['side']}x{row['side']}", f"{row['forward'] * 1e3:.3g}", f"{row['backward'] * 1e3:.3g}")
        for row in found["growth"]["rows"]
    ]
    return table(("window 7, 4 heads of 32", "forward, ms", "backward, ms"), rows)


def versions() -> str:
    """What each version of the kernels took, with one thread."""
    entries = json.loads((RESULTS / "cpu_versions.json").read_text())
    names = tuple(dict.fromkeys(name for entry in entries for name in entry["rows"]))

    def cell(row: dict[str, float]) -> str:
        times = milliseconds({name: row[name] for name in ("forward", "backward") if name in row})
        return times + (f" ({row['share_of_floor']:.2f})" if "share_of_floor" in row else "")

    rows = [
        (entry["version"], entry["machine"]["commit"][:10], *(cell(entry["rows"][name]) for name in names))
        for entry in entries
    ]
    return table(("version", "commit", *names), rows)


SECTIONS = {
    "about": about,
    "bars": bars,
    "shapes": shapes,
    "ratios": ratios,
    "decoding": decoding,
    "growth": growth,
    "versions": lambda _: versions(),
}


def main() -> None:
    path = RESULTS / "cpu_attention.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    text = PAGE.read_text()
    for name, make in SECTIONS.items():
        measured = name == "versions" or "bars" in found
        section = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.DOTALL)
        if section.search(text) is None:
            raise SystemExit(f"{PAGE.name} has no section between <!-- {name} --> and <!-- /{name} -->")
        text = section.sub(
            lambda match, make=make, measured=measured: f"{match[1]}{make(found) if measured else NOT_YET}\n{match[2]}",
            text,
        )
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
