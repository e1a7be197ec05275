"""Segmentation of very small structures in slices (arXiv 2512.03597)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="hbformer",
        title="HBFormer: A Hybrid-Bridge Transformer for Microtumor and Miniature Organ Segmentation",
        about="Segmentation of very small structures in slices",
        year=2025,
        authors=9,
        paper="arXiv:2512.03597",
        code="lzeeorno/HBFormer",
        licence="MIT",
        area="segmentation",
        idea="Finds very small organs and tumours in slices with a Swin encoder and a decoder whose dilated "
        "depthwise kernels are mixed anew for each image.",
        carried_by=("models", "tasks"),
    ),
    views=(
        View("window", "window:size=8", (32, 32)),
        View("shifted window", "window:size=8,shift=4", (32, 32)),
    ),
)
