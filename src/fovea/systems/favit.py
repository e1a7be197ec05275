"""Summary keys that span the image (arXiv 2312.08614)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="favit",
        title="Factorization Vision Transformer: Modeling Long Range Dependency with Local Window Cost",
        about="Summary keys that span the image",
        year=2023,
        authors=5,
        paper="arXiv:2312.08614",
        code="q2479036243/FaViT",
        licence=None,
        area="recognition",
        idea="Averages all windows, plain and dilated, into a small fixed set of summary keys, so that each "
        "query reaches the whole image for the price of one window.",
        carried_by=("models",),
    ),
)
