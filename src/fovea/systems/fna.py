"""Neighborhood attention and its tiled kernels (arXiv 2403.04690)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="fna",
        title="Faster Neighborhood Attention: Reducing the O(n^2) Cost of Self Attention at the Threadblock Level",
        about="Neighborhood attention and its tiled kernels",
        year=2024,
        authors=3,
        paper="arXiv:2403.04690",
        code="SHI-Labs/NATTEN",
        licence="MIT",
        area="kernels",
        idea="Gives every token of a line, plane or volume its nearest tokens as keys, moved inside at the "
        "borders so that all see equally many, and fuses it into one tiled kernel.",
        carried_by=("patterns", "kernels"),
    ),
    views=(
        View("neighborhood", "neighborhood:window=7", (24, 24)),
        View("dilated neighborhood", "neighborhood:window=7,dilation=3", (24, 24)),
        View("causal in time, local in space", "neighborhood:window=3x5x5,causal=1x0x0", (4, 9, 9)),
    ),
)
