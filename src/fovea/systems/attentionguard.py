"""A page that adapts to a learner's attention (arXiv 2602.07865)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="attentionguard",
        title="Orchestrating Attention: Bringing Harmony to the 'Chaos' of Neurodivergent Learning States",
        about="A page that adapts to a learner's attention",
        year=2026,
        authors=3,
        paper="arXiv:2602.07865",
        code=None,
        licence=None,
        area="human attention",
        idea="Infers from ordinary interaction whether a learner is focused, drifting, hyperfocused or tired, "
        "and calms or enlivens the page accordingly.",
        carried_by=("human", "web"),
    ),
)
