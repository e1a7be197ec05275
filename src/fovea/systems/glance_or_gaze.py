"""Searching with a picture or a part of it (arXiv 2601.13942)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="glance-or-gaze",
        title="Glance-or-Gaze: Incentivizing LMMs to Adaptively Focus Search via Reinforcement Learning",
        about="Searching with a picture or a part of it",
        year=2026,
        authors=8,
        paper="arXiv:2601.13942",
        code="TOM-ZHOUch/Glance-or-Gaze",
        licence="MIT",
        area="agents",
        idea="Trains a model to decide, before it answers about a picture, whether to search with words, with "
        "the whole picture, or with a region it cuts out, and to think again.",
        carried_by=("agents",),
    ),
)
