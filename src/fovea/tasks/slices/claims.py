"""HBFormer's claims, measured at a size that two processor cores can hold (arXiv 2512.03597).

The network against its own parts left out and against a plain U-Net, on generated slices with very small tumours and on
real ones. Every training is a run folder in the user's cache: what is finished is not trained again, what was
interrupted goes on. The functions return numbers and no verdicts.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

from fovea.errors import UserError
from fovea.kernels.cache import folder
from fovea.models.hbformer_config import HBFormerConfig
from fovea.models.unet_config import UNetConfig
from fovea.tasks import configuration
from fovea.tasks.optimisation import Hardware
from fovea.tasks.run import RunDirectory
from fovea.tasks.slices import start
from fovea.tasks.slices.config import Data, Epochs, SlicesConfig
from fovea.tasks.slices.losses import losses
from fovea.tasks.slices.task import Segmentation

SEEDS = (0, 1, 2)
NETWORK = HBFormerConfig(
    img_size=64,
    num_classes=3,
    embed_dim=32,
    depths=(2, 1, 1, 1),
    num_heads=(1, 2, 4, 8),
    mlp_ratio=2.0,
    drop_path_rate=0.1,
    feature_size=16,
)
OURS, UNET = "HBFormer", "plain U-Net"
VARIANTS: dict[str, SlicesConfig] = {
    OURS: SlicesConfig(network=NETWORK, standardise=True),
    UNET: SlicesConfig(model="unet", network=NETWORK, unet=UNetConfig(width=16, levels=5)),
    "without dynamic experts": SlicesConfig(network=replace(NETWORK, experts=1), standardise=True),
    "skips at their natural level": SlicesConfig(network=replace(NETWORK, skips="natural"), standardise=True),
    "Swin encoder, U-Net decoder": SlicesConfig(
        network=replace(NETWORK, decoder="unet", mlp_ratio=3.5), standardise=True
    ),
}
"""The plain U-Net's width and the last one's wider encoder are such that each has about as many parameters. Only the
one without dynamic experts has fewer."""
LESSON = Epochs(
    steps=500,
    batch=8,
    algorithm="adamw",
    lr=4e-3,
    betas=(0.9, 0.999),
    weight_decay=1e-3,
    schedule="cosine",
    warmup=20,
    gradient_clip=1.0,
    ema=0.98,
    validate_every=500,
    checkpoint_every=100,
)
GENERATED = Data(size=64, fit="pad", intensity="unit", test_slices=128)
HIPPOCAMPUS = Data(size=64, fit="pad", intensity="percentiles", augment=False, foreground=0.5)
"""The crops all lie the same way, and which part is which is told by that: nothing is turned."""


def on_generated(*, quiet: bool = False) -> dict[str, Any]:
    """Every variant on generated slices: Dice, HD95, recall of small tumours by size, mean of three seeds."""
    return _compared(tuple(VARIANTS), GENERATED, None, quiet)


def on_hippocampus(*, quiet: bool = False) -> dict[str, Any]:
    """HBFormer and a plain U-Net on axial slices of 32 volumes of MRI, measured on 8 others, as volumes and slices."""
    return _compared((OURS, UNET), HIPPOCAMPUS, _hippocampus(), quiet)


def parts_on_hippocampus(*, quiet: bool = False) -> dict[str, Any]:
    """The same, HBFormer with parts of it left out or replaced."""
    names = tuple(name for name in VARIANTS if name != UNET)
    return _compared(names, HIPPOCAMPUS, _hippocampus(), quiet)


def _hippocampus() -> Path:
    data = Path(os.environ.get("FOVEA_DATA", Path(__file__).resolve().parents[5] / "shared" / "data"))
    if not (data / "msd_hippocampus" / "dataset.json").is_file():
        raise UserError(
            f"there is no data set {data / 'msd_hippocampus'}; FOVEA_DATA names the folder that it is in "
            "(Medical Segmentation Decathlon, Task04_Hippocampus, called msd_hippocampus)"
        )
    return data / "msd_hippocampus"


def _compared(names: Sequence[str], data: Data, where: Path | None, quiet: bool) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in SEEDS:
        for name in names:
            hardware = Hardware(accelerator="cpu")
            config = replace(VARIANTS[name], data=data, optimisation=LESSON, hardware=hardware, seed=seed)
            runs[name].append(_trained(config, where, quiet))
    found: dict[str, Any] = {"data": where.name if where else "generated slices", "steps": LESSON.steps}
    for name in names:
        network = start.made(VARIANTS[name])
        seconds = LESSON.steps * _seconds_a_step(network, VARIANTS[name], data.size)
        told = {"parameters": start.parameters(network), "processor_seconds": round(seconds, 1)}
        found[name] = told | _summary(runs[name])
    return found


def _seconds_a_step(network: nn.Module, config: SlicesConfig, size: int) -> float:
    """Processor time of a forward and backward pass of a batch, of all threads together: the least of a few."""
    images = torch.rand(LESSON.batch, 3, size, size)
    labels = torch.randint(config.num_classes, (LESSON.batch, size, size))
    taken = []
    for _ in range(4):
        begun = time.process_time()
        losses(network(images), labels, config.loss.weights)["loss"].backward()
        taken.append(time.process_time() - begun)
    return min(taken)


def _trained(config: SlicesConfig, where: Path | None, quiet: bool) -> dict[str, float]:
    """The numbers of a training; one that is finished is read, one that was interrupted goes on."""
    words = json.dumps([configuration.to_dict(config), where.name if where else None])
    run = RunDirectory(folder() / "claims" / hashlib.sha256(words.encode()).hexdigest()[:16], quiet=True)
    finished = run.path / "metrics.json"
    if finished.is_file():
        return json.loads(finished.read_text())
    resume = (run.path / "config.yaml").is_file()
    return Segmentation().train(config, run, where, resume=resume, quiet=quiet)


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, and each seed's value; what a run could not say is left out."""
    return {
        name: {"mean": mean(values), "deviation": stdev(values), "seeds": values}
        for name in runs[0]
        if len(values := [run[name] for run in runs if name in run]) == len(runs)
    }
