"""HBFormer's claims, measured at a size that two processor cores can hold (arXiv 2512.03597).

The network against its own parts left out and against plain U-Nets, on generated slices with very small tumours and on
real ones. Every training is a run folder in the user's cache: what is finished is not trained again, what was
interrupted goes on. The functions return numbers and no verdicts.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fovea.errors import UserError
from fovea.kernels.cache import folder
from fovea.models.hbformer_config import HBFormerConfig
from fovea.models.unet_config import UNetConfig
from fovea.tasks import configuration
from fovea.tasks.optimisation import Hardware
from fovea.tasks.run import RunDirectory
from fovea.tasks.slices import start
from fovea.tasks.slices.config import Data, Epochs, SlicesConfig
from fovea.tasks.slices.task import Segmentation

SEEDS = (0, 1, 2)
NETWORK = HBFormerConfig(img_size=64, num_classes=3, embed_dim=24, feature_size=12, drop_path_rate=0.1)
VARIANTS: dict[str, SlicesConfig] = {
    "HBFormer": SlicesConfig(network=NETWORK),
    "without dynamic experts": SlicesConfig(network=replace(NETWORK, experts=1)),
    "skips at their natural level": SlicesConfig(network=replace(NETWORK, skips="natural")),
    "Swin encoder, U-Net decoder": SlicesConfig(network=replace(NETWORK, decoder="unet", mlp_ratio=4.5)),
    "plain U-Net": SlicesConfig(model="unet", network=NETWORK, unet=UNetConfig(width=18, levels=5)),
}
"""The second last has a wider encoder, the last its width, so that each has about as many parameters as HBFormer."""
LESSON = Epochs(
    steps=500,
    batch=8,
    algorithm="adamw",
    lr=2e-3,
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
    return _compared(GENERATED, None, quiet)


def on_hippocampus(*, quiet: bool = False) -> dict[str, Any]:
    """Every variant on axial slices of 32 volumes of MRI, measured on 8 others, as volumes and slice by slice."""
    data = Path(os.environ.get("FOVEA_DATA", Path(__file__).resolve().parents[5] / "shared" / "data"))
    if not (data / "msd_hippocampus" / "dataset.json").is_file():
        raise UserError(
            f"there is no data set {data / 'msd_hippocampus'}; FOVEA_DATA names the folder that it is in "
            "(Medical Segmentation Decathlon, Task04_Hippocampus, called msd_hippocampus)"
        )
    return _compared(HIPPOCAMPUS, data / "msd_hippocampus", quiet)


def _compared(data: Data, where: Path | None, quiet: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"data": where.name if where else "generated slices", "steps": LESSON.steps}
    for name, variant in VARIANTS.items():
        runs = []
        for seed in SEEDS:
            hardware = Hardware(accelerator="cpu")
            config = replace(variant, data=data, optimisation=LESSON, hardware=hardware, seed=seed)
            runs.append(_trained(config, where, quiet))
        found[name] = {"parameters": start.parameters(start.made(variant)), **_summary(runs)}
    return found


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
