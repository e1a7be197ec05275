"""Swin UNETR: segmentation of volumes with three-dimensional windows (arXiv 2201.01266)."""

from __future__ import annotations

from dataclasses import replace

from fovea.models.swin_unetr_config import SwinUNETRConfig
from fovea.systems.system import Card, Claim, System, View
from fovea.tasks.segmentation.config import Data, Loss, VolumesConfig, WarmCosine
from fovea.tasks.segmentation.trainings import DEMO, HIPPOCAMPUS

BRATS_CASES, EPOCHS, DEVICES = 1001, 300, 4
"""Four of five folds of 1251 subjects; epochs and devices of the official training, one crop a device and step."""


def _paper() -> dict[str, VolumesConfig]:
    """The trainings of the official code, in its epochs; they need the BraTS 2021 folder and its list of folds."""
    epoch = BRATS_CASES // DEVICES
    official = WarmCosine(
        steps=EPOCHS * epoch,
        batch=DEVICES,
        algorithm="adamw",
        lr=1e-4,
        betas=(0.9, 0.999),
        weight_decay=1e-5,
        schedule="cosine",
        warmup=50 * epoch,
        ema=0.0,
        validate_every=20 * epoch,
        checkpoint_every=epoch,
        report_every=50,
    )
    brats = VolumesConfig(
        network=SwinUNETRConfig(gradient_checkpointing=True),
        data=Data(roi=(128, 128, 128), overlap=0.7, normalise="crop", blend="constant"),
        loss=Loss("dice"),
        optimisation=official,
    )
    paper = replace(
        brats,
        loss=Loss("dice", squared=True),
        optimisation=replace(
            official, batch=8, lr=8e-4, steps=800 * (BRATS_CASES // 8), warmup=50 * (BRATS_CASES // 8)
        ),
    )
    better = replace(brats, data=Data(roi=(128, 128, 128), overlap=0.7), loss=Loss("dice-ce"))
    task01 = Data(coding="msd-brats", roi=(128, 128, 128), overlap=0.7, held_out=96)
    return {
        "paper-brats21": brats,
        "paper-brats21-text": paper,
        "paper-brats21-v2": replace(brats, network=replace(brats.network, stage_convolutions=True)),
        "brats21": better,
        "msd-task01": replace(better, data=task01),
    }


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
        status="ready",
    ),
    presets={"demo": DEMO, "hippocampus": HIPPOCAMPUS, **_paper()},
    task="fovea.tasks.segmentation",
    claims=(
        Claim(
            "hippocampus",
            "On real MRI it segments better than a plain U-Net of as many parameters and than itself without shifts.",
            "BraTS 2021, five folds, mean Dice: .913; nnU-Net .908, SegResNet .907, TransBTS .891",
            "fovea.tasks.segmentation.claims:hippocampus",
        ),
        Claim(
            "regions",
            "Nested regions (TC, WT, ET) of lesions of all sizes, on generated brains.",
            "BraTS 2021, five folds: ET .891, WT .933, TC .917",
            "fovea.tasks.segmentation.claims:regions",
        ),
    ),
    views=(
        View("windows", "window:size=7", (14, 14, 14)),
        View("shifted windows", "window:size=7,shift=3", (14, 14, 14)),
    ),
)
