"""HAT's claims, measured at a size that two processor cores can hold (arXiv 2205.04437 and 2309.05239).

Every training is a run folder in the user's cache: what is finished is not trained again, what was interrupted goes on.
The functions return numbers and no verdicts.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from fovea.kernels.cache import folder
from fovea.models.hat import HAT
from fovea.models.hat_config import HATConfig
from fovea.tasks import configuration
from fovea.tasks.optimisation import Hardware, Optimisation
from fovea.tasks.restoration import measure, sources, start
from fovea.tasks.restoration.config import Data, RestorationConfig
from fovea.tasks.restoration.page import where_it_looked
from fovea.tasks.restoration.task import Restoration
from fovea.tasks.run import RunDirectory, versions

Source = Literal["photographs", "textures", "natural"]

SEEDS = (0, 1, 2)
NETWORK = HATConfig(
    upscale=2,
    embed_dim=36,
    depths=(2, 2),
    num_heads=(3, 3),
    window_size=8,
    compress_ratio=3,
    squeeze_factor=6,
    drop_path_rate=0.0,
)
SWIN = replace(NETWORK, cab=False, ocab=False)
VARIANTS: dict[str, HATConfig] = {
    "HAT": NETWORK,
    "without overlapping attention": replace(NETWORK, ocab=False),
    "without channel attention": replace(NETWORK, cab=False),
    "without both": SWIN,
    "without both, as many parameters": replace(SWIN, depths=(5, 4)),
    "window 4": replace(NETWORK, window_size=4),
}
LESSON = Optimisation(
    steps=400,
    batch=4,
    lr=5e-4,
    schedule="cosine",
    warmup=20,
    gradient_clip=1.0,
    ema=0.98,
    validate_every=400,
    checkpoint_every=100,
)
BEFORE = 3 * LESSON.steps
"""Steps of pre-training on generated images."""


def on_textures(*, quiet: bool = False) -> dict[str, Any]:
    """Every variant on generated textures that repeat themselves: PSNR, SSIM, diffusion index, mean of three seeds."""
    return _ablation("textures", quiet)


def on_photographs(*, quiet: bool = False) -> dict[str, Any]:
    """Every variant on scikit-image's photographs: PSNR, SSIM and diffusion index, mean of three seeds."""
    return _ablation("photographs", quiet)


def pretraining(*, quiet: bool = False) -> dict[str, Any]:
    """Many generated images first, then few photographs at a twentieth of the rate, against the photographs alone.

    Both see the photographs for equally many steps; what came before and the rate are all that differs.
    """
    runs: dict[str, list[dict[str, float]]] = {"pre-trained": [], "from scratch": []}
    for seed in SEEDS:
        many = _config("natural", NETWORK, seed)
        many = replace(many, optimisation=replace(LESSON, steps=BEFORE, validate_every=BEFORE))
        few = _config("photographs", NETWORK, seed)
        gentle = replace(few, optimisation=replace(LESSON, lr=LESSON.lr / 20))
        before, _ = _trained(many, None, quiet)
        for name, config, checkpoint in (("pre-trained", gentle, before), ("from scratch", few, None)):
            runs[name].append(_trained(config, checkpoint, quiet)[1])
    facts = {"data": "photographs", "steps": LESSON.steps, "steps_before": BEFORE}
    return facts | {name: _summary(found) for name, found in runs.items()}


def _ablation(source: Source, quiet: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"data": source, "steps": LESSON.steps}
    for name, network in VARIANTS.items():
        runs = []
        for seed in SEEDS:
            config = _config(source, network, seed)
            checkpoint, measured = _trained(config, None, quiet)
            runs.append(measured | {"diffusion_index": _diffusion(checkpoint, config)})
        found[name] = {"parameters": sum(p.numel() for p in HAT(network).parameters()), **_summary(runs)}
    return found


def _config(source: Source, network: HATConfig, seed: int) -> RestorationConfig:
    return RestorationConfig(
        network=network,
        data=Data(source=source, patch=32),
        optimisation=LESSON,
        hardware=Hardware(accelerator="cpu"),
        beginning="interpolation",
        seed=seed,
    )


def _trained(config: RestorationConfig, checkpoint: Path | None, quiet: bool) -> tuple[Path, dict[str, float]]:
    """Checkpoint and numbers of a training; one that is finished is read, one that was interrupted goes on.

    Only trainings of the same code, as far as its version and commit tell.
    """
    made_by = {name: versions().get(name) for name in ("fovea", "torch", "commit")}
    words = json.dumps([configuration.to_dict(config), str(checkpoint), made_by])
    run = RunDirectory(folder() / "claims" / hashlib.sha256(words.encode()).hexdigest()[:16], quiet=True)
    finished = run.path / "metrics.json"
    if finished.is_file():
        return run.checkpoint, json.loads(finished.read_text())
    resume = (run.path / "config.yaml").is_file()
    return run.checkpoint, Restoration().train(config, run, None, checkpoint=checkpoint, resume=resume, quiet=quiet)


def _diffusion(checkpoint: Path, config: RestorationConfig) -> float:
    """The mean diffusion index of the hardest patch of each validated image."""
    network = start.load(checkpoint, config)
    results = measure.restored(network, sources.validation(config), config)
    return mean(where_it_looked(network, item)[1].diffusion_index for item in results)


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, and each seed's value."""
    return {
        name: {"mean": mean(values), "deviation": stdev(values), "seeds": values}
        for name in runs[0]
        if (values := [run[name] for run in runs])
    }
