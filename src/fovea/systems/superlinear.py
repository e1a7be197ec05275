"""Attention as a search for spans (arXiv 2601.18401)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="superlinear",
        title="Superlinear Multi-Step Attention",
        about="Attention as a search for spans",
        year=2026,
        authors=1,
        paper="arXiv:2601.18401",
        code="concavity-ai/superlinear",
        licence="Apache-2.0",
        area="language",
        idea="Scores about the square root of the positions as anchors for each query, opens a run of keys at "
        "the best two or three, and mixes what they say by their scores, so that choosing is learned.",
        carried_by=("kernels", "nn", "models"),
    ),
)
