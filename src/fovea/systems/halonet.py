"""Blocked local attention with halos (arXiv 2103.12731)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="halonet",
        title="Scaling Local Self-Attention for Parameter Efficient Visual Backbones",
        about="Blocked local attention with halos",
        year=2021,
        authors=6,
        paper="arXiv:2103.12731",
        code=None,
        licence=None,
        area="recognition",
        idea="Replaces the 3x3 convolutions of a residual network by attention of pixel blocks over themselves "
        "and a rim of pixels around them, also where the map is halved.",
        carried_by=("models",),
    ),
    views=(View("block with its halo", "halo:block=8,halo=3,border=zero", (32, 32)),),
)
