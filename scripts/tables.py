"""Tables of the README and the documentation, from the cards and from measured files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fovea.systems.catalogue import catalogue

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def catalogue_table() -> str:
    """One row a system: what it is, whether it works, where it was published."""
    rows = []
    for slug, system in catalogue().items():
        card = system.card
        title = f"[{card.title}]({card.paper_address})" if card.paper_address else card.title
        rows.append((f"`{slug}`", title, str(card.year), card.area, card.status))
    return table(("system", "paper", "year", "area", "status"), rows)


def results() -> dict[str, Any]:
    """What has been measured: the files of ``benchmarks/results``, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
