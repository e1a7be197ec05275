"""``fovea list`` and ``fovea show``: the catalogue."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fovea.cli import words
from fovea.cli.output import show, show_json, show_measured

if TYPE_CHECKING:
    from fovea.systems.system import System


def register(app: typer.Typer) -> None:
    app.command("list")(list_systems)
    app.command("show")(show_system)


def list_systems(
    text: Annotated[list[str] | None, typer.Argument(metavar="WORDS", help="Words to look for.")] = None,
    area: Annotated[str | None, typer.Option(help="Only this area, e.g. language, restoration, agents.")] = None,
    ready: Annotated[bool, typer.Option("--ready", help="Only what works from end to end.")] = False,
    json: words.Json = False,
) -> None:
    """The catalogue: every system, its area and whether it works yet.

    \b
    Examples:
      fovea list
      fovea list --area language
      fovea list window video
    """
    from fovea.errors import unknown
    from fovea.systems.catalogue import catalogue
    from fovea.systems.system import AREAS

    if area is not None and area not in AREAS:
        raise unknown("area", area, AREAS, hint=f"areas are {', '.join(AREAS)}")
    found = [
        system
        for system in catalogue().values()
        if (area is None or system.card.area == area)
        and (not ready or system.card.status == "ready")
        and all(word.lower() in _searched(system) for word in text or [])
    ]
    if json:
        show_json([asdict(system.card) for system in found])
        return
    if not found:
        show("No system fits; 'fovea list' shows all.")
        return
    for name, systems in groupby(found, key=lambda system: system.card.area):
        show("", heading=name)
        for system in systems:
            print(f"  {system.card.slug:20} {system.card.status:8} {system.card.about}")


def show_system(
    name: words.SystemName,
    draw: Annotated[
        Path | None, typer.Option("--draw", metavar="FILE.png", help="Also draw its patterns into this file.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="Show the settings of this preset instead of the card.")
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="Folder of measured claims.")] = None,
    json: words.Json = False,
) -> None:
    """One system: its card, the patterns it looks with, its presets, and what has been measured.

    \b
    Examples:
      fovea show hat
      fovea show gna --draw gna.png
      fovea show hat --preset demo
    """
    from fovea.systems import ledger as ledgers

    system = words.system(name)
    card = system.card
    if preset is not None:
        _show_settings(words.preset(system, preset), json)
        return
    measured = ledgers.read(ledger, card.slug)
    if draw is not None:
        from fovea.cli.geometry import draw_views

        draw_views(system, words.writable(draw, suffixes=[".png"]))
    if json:
        show_json(_as_json(system, measured))
        return
    show(f" - {card.title}\n", heading=card.slug)
    show(f"{card.idea}\n")
    planned = "planned: not built yet" if system.task is None else "planned: runs in part, not finished"
    facts = {
        "status": "ready" if card.status == "ready" else planned,
        "area": card.area,
        "paper": f"{card.paper_address or 'no address known'} ({card.year}, {_count(card.authors, 'author')})",
        "code": card.code_address or "none published",
        "licence": card.licence or ("none stated" if card.code else "-"),
        "lives in": ", ".join(f"fovea.{room}" for room in card.carried_by),
    }
    for label, fact in facts.items():
        show(f"  {label:10}{fact}")
    _show_views(system)
    _show_presets(system)
    _show_claims(system, measured)
    if draw is not None:
        show(f"\nDrawn: {draw}")


def _searched(system: System) -> str:
    card = system.card
    parts = (card.slug, card.title, card.about, card.area, card.idea, card.status, card.code or "", *card.carried_by)
    views = (f"{view.name} {view.pattern}" for view in system.views)
    return " ".join((*parts, *views)).lower()


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _show_views(system: System) -> None:
    from fovea.cli.sketch import sketch

    for view in system.views:
        shape = "x".join(map(str, view.grid))
        show(f": {view.pattern} on {shape}\n", heading=f"\n{view.name}")
        for line in sketch(words.pattern(view.pattern), view.grid):
            print(f"  {line}")


def _show_presets(system: System) -> None:
    if system.presets:
        show("\n", heading="\npresets")
        for name in system.presets:
            show(f"  {name}")
        show(f"\n  settings of one: fovea show {system.card.slug} --preset {next(iter(system.presets))}")


def _show_settings(preset: Any, json: bool) -> None:
    from fovea.tasks import configuration

    if json:
        show_json(configuration.to_dict(preset))
        return
    for key, value in configuration.flat(preset):
        text = (
            ",".join(map(str, value))
            if isinstance(value, tuple)
            else str(value).lower()
            if value is None or isinstance(value, bool)
            else value
        )
        print(f"{key}={text}")


def _show_claims(system: System, measured: dict[str, Any]) -> None:
    show("\n", heading="\nmeasured")
    if not system.claims:
        show("  No claim of this paper can be measured yet.")
    for claim in system.claims:
        show(f"  {claim.name}: {claim.sentence}")
        show(f"    paper: {claim.paper_number or 'no number given'}")
        entry = measured.get(claim.name)
        print(f"    ours:  {'not measured yet' if entry is None else entry['date']}")
        if entry is not None:
            show_measured(entry["measured"])


def _as_json(system: System, measured: dict[str, Any]) -> dict[str, Any]:
    from fovea.tasks import configuration

    return {
        "card": asdict(system.card),
        "views": [asdict(view) for view in system.views],
        "presets": {name: configuration.to_dict(preset) for name, preset in system.presets.items()},
        "claims": [{**asdict(claim), "measured": measured.get(claim.name)} for claim in system.claims],
    }
