"""HAT: super-resolution and other image restoration (arXiv 2205.04437 and 2309.05239)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="hat",
        title="HAT: Hybrid Attention Transformer for Image Restoration",
        year=2023,
        authors=7,
        paper="arXiv:2309.05239",
        code="XPixelGroup/HAT",
        licence="Apache-2.0",
        area="restoration",
        idea="Restores an image with shifted windows, channel attention beside them, and queries of a window that read "
        "the keys of a half-again wider window, so that more of the picture takes part in every pixel.",
        carried_by=("models", "tasks", "inspect"),
        status="planned",
    ),
    views=(
        View("window attention", "window:size=16", (48, 48)),
        View("shifted window attention", "window:size=16,shift=8", (48, 48)),
        View("overlapping cross-attention", "halo:block=16,halo=4,border=zero", (48, 48)),
    ),
)
