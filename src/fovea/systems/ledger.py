"""The ledger: what our own runs measured of the papers' claims, one JSON file a system.

{"system": "hat", "claims": {NAME: {"sentence", "paper_number", "measured", "seconds", "date", "versions"}}}
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from fovea.errors import UserError
from fovea.systems.system import Claim


def folder() -> Path:
    """Where the ledger is: ``FOVEA_LEDGER``, else ``benchmarks/ledger`` here, else that of the source tree."""
    if named := os.environ.get("FOVEA_LEDGER"):
        return Path(named)
    here, source = Path("benchmarks/ledger"), Path(__file__).resolve().parents[3] / "benchmarks" / "ledger"
    return source if source.is_dir() and not here.is_dir() else here


def read(where: Path | None, slug: str) -> dict[str, Any]:
    """The measured claims of a system by their names; empty when nothing was measured."""
    file = (where or folder()) / f"{slug}.json"
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text())["claims"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no ledger of fovea's: {error}") from error


def measure(slug: str, claim: Claim, where: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Measure one claim and write it into the ledger; returns its entry."""
    from importlib import import_module

    from fovea.tasks.run import replacing, versions

    module, _, function = claim.measure.partition(":")
    call = getattr(import_module(module), function)
    where.mkdir(parents=True, exist_ok=True)
    begun, what = time.perf_counter(), versions()
    measured = call(quiet=quiet)
    entry = {
        "sentence": claim.sentence,
        "paper_number": claim.paper_number,
        "measured": measured,
        "seconds": round(time.perf_counter() - begun, 3),
        "date": time.strftime("%Y-%m-%d"),
        "versions": what,
    }
    claims = {**read(where, slug), claim.name: entry}
    with replacing(where / f"{slug}.json") as temporary:
        temporary.write_text(json.dumps({"system": slug, "claims": claims}, indent=2) + "\n")
    return entry
