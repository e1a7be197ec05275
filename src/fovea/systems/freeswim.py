"""Video above the training size, without training (arXiv 2511.14712)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="freeswim",
        title="FreeSwim: Revisiting Sliding-Window Attention Mechanisms for Training-Free Ultra-High-Resolution "
        "Video Generation",
        about="Video above the training size, without training",
        year=2025,
        authors=4,
        paper="arXiv:2511.14712",
        code="WillWu111/FreeSwim",
        licence=None,
        area="generation",
        idea="Makes a finished video model draw far above its training size: each query keeps the window it was "
        "trained with, and a second, unrestricted stream lends it its reading of the text.",
        carried_by=("steer",),
    ),
    views=(
        View(
            "window moved inside, all frames seen",
            "product(full; neighborhood:window=9; neighborhood:window=13)",
            (3, 18, 26),
        ),
    ),
)
