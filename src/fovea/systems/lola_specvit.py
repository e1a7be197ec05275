"""Hyperspectral pixels from few labels (arXiv 2506.17759)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="lola-specvit",
        title="LoLA-SpecViT: Local Attention SwiGLU Vision Transformer with LoRA for Hyperspectral Imaging",
        about="Hyperspectral pixels from few labels",
        year=2025,
        authors=7,
        paper="arXiv:2506.17759",
        code="FadiZidiDz/LoLA-SpecViT-Model",
        licence="custom, non-commercial",
        area="hyperspectral",
        idea="Classifies the pixels of hyperspectral scenes from few labels with convolutions over spectrum and "
        "space before windowed attention, training little more than gated low-rank adapters.",
        carried_by=("models", "tasks"),
    ),
    views=(View("window", "window:size=7", (14, 14)),),
)
