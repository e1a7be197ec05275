"""Segmentation of volumes with three-dimensional windows (arXiv 2201.01266)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="swin-unetr",
        title="Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI Images",
        about="Segmentation of volumes with three-dimensional windows",
        year=2022,
        authors=6,
        paper="arXiv:2201.01266",
        code="Project-MONAI/MONAI",
        licence="Apache-2.0",
        area="segmentation",
        idea="Segments tumours in volumes of several MRI contrasts with shifted windows in three dimensions on "
        "the way down and convolutions on the way up.",
        carried_by=("models", "tasks"),
    ),
    views=(
        View("windows", "window:size=7", (14, 14, 14)),
        View("shifted windows", "window:size=7,shift=3", (14, 14, 14)),
    ),
)
