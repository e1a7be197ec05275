"""Strided neighborhood attention, and what its tiles cost (arXiv 2504.16922)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="gna",
        title="Generalized Neighborhood Attention: Multi-dimensional Sparse Attention at the Speed of Light",
        about="Strided neighborhood attention, and what its tiles cost",
        year=2025,
        authors=16,
        paper="arXiv:2504.16922",
        code="SHI-Labs/NATTEN",
        licence="MIT",
        area="kernels",
        idea="Lets groups of neighbouring queries share one window, from sliding to blocked, so that tiles of a "
        "kernel can be skipped whole and the saved work becomes saved time.",
        carried_by=("patterns", "kernels", "steer"),
    ),
    views=(
        View("sliding (stride 1)", "neighborhood:window=8", (22, 22)),
        View("strided", "neighborhood:window=8,stride=4", (22, 22)),
        View("blocked (stride = window)", "neighborhood:window=8,stride=8", (22, 22)),
    ),
)
