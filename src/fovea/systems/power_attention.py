"""Blocks at powers of two (arXiv 2503.03588)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="power-attention",
        title="PowerAttention: Exponentially Scaling of Receptive Fields for Effective Sparse Attention",
        about="Blocks at powers of two",
        year=2025,
        authors=11,
        paper="arXiv:2503.03588",
        code=None,
        licence=None,
        area="language",
        idea="Lets each block of tokens see the blocks 1, 2, 4, 8 and so on back besides its neighbours and the "
        "first, so that any earlier block is a few layers away.",
        carried_by=("patterns", "models", "steer"),
    ),
    views=(
        View("power blocks", "blocks:size=8,terms=local(5)+sink(1)+powers", (512,)),
        View("baseline: sliding blocks", "blocks:size=8,terms=local(9)+sink(1)", (512,)),
        View("baseline: every so many blocks", "blocks:size=8,terms=local(6)+sink(1)+every(16)", (512,)),
    ),
)
