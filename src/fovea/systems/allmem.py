"""Language models with a memory that learns while reading (arXiv 2602.13680)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="allmem",
        title="AllMem: A Memory-centric Recipe for Efficient Long-context Modeling",
        about="Language models with a memory that learns while reading",
        year=2026,
        authors=8,
        paper="arXiv:2602.13680",
        code=None,
        licence=None,
        area="language",
        idea="Turns a finished language model into one of constant memory: a sliding window with sinks, and "
        "beside it a small network whose weights are learned while reading.",
        carried_by=("nn", "models", "steer"),
    ),
    views=(View("sliding window with sinks", "blocks:size=4,terms=local(8)+sink(1)", (256,)),),
)
