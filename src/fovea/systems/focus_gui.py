"""Finding where to click, fast or slow (arXiv 2503.06470)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="focus-gui",
        title="Think Twice, Click Once: Enhancing GUI Grounding via Fast and Slow Systems",
        about="Finding where to click, fast or slow",
        year=2025,
        authors=9,
        paper="arXiv:2503.06470",
        code="sugarandgugu/Focus",
        licence=None,
        area="agents",
        idea="Finds where to click for an instruction, at once where the screen is simple, and after a summary "
        "and a description of the relevant part where it is not.",
        carried_by=("agents",),
    ),
)
