"""Swin UNETR's claims, measured at a size that two processor cores can hold (arXiv 2201.01266).

Every training is a run folder in the user's cache: what is finished is not trained again, what was interrupted goes on.
The functions return numbers and no verdicts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fovea.errors import UserError
from fovea.kernels.cache import folder
from fovea.tasks import configuration
from fovea.tasks.optimisation import Hardware
from fovea.tasks.run import RunDirectory
from fovea.tasks.segmentation import start
from fovea.tasks.segmentation.config import VolumesConfig
from fovea.tasks.segmentation.task import VolumeSegmentation
from fovea.tasks.segmentation.trainings import DEMO, HIPPOCAMPUS

SEEDS = (0, 1, 2)
DATA = "FOVEA_SHARED_DATA"
"""Environment variable: the folder that holds ``msd_hippocampus``."""


def hippocampus(*, quiet: bool = False) -> dict[str, Any]:
    """Anterior and posterior hippocampus in 8 of 40 volumes, after training on 32: Dice and HD95, three seeds."""
    data = _shared() / "msd_hippocampus"
    if not data.is_dir():
        raise UserError(f"there is no {data}; {DATA} names the folder that holds msd_hippocampus")
    return _compared(HIPPOCAMPUS, data, quiet)


def regions(*, quiet: bool = False) -> dict[str, Any]:
    """TC, WT and ET of generated brains, in the demonstration's training: Dice and HD95, three seeds."""
    return _compared(DEMO, None, quiet)


def _compared(config: VolumesConfig, data: Path | None, quiet: bool) -> dict[str, Any]:
    variants = {
        "Swin UNETR": config,
        "without shift": replace(config, network=replace(config.network, shifted=False)),
        "plain U-Net": replace(config, model="unet"),
    }
    found: dict[str, Any] = {
        "data": "phantoms" if data is None else data.name,
        "steps": config.optimisation.steps,
        "crop": list(config.data.roi),
        "held_out": config.data.test_cases if data is None else config.data.held_out,
    }
    optimisation = replace(config.optimisation, validate_every=config.optimisation.steps)
    variants = {
        name: replace(variant, optimisation=optimisation, hardware=Hardware(accelerator="cpu"))
        for name, variant in variants.items()
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for seed in SEEDS:
        for name, variant in variants.items():
            runs[name].append(_trained(replace(variant, seed=seed), data, quiet))
    for name, variant in variants.items():
        found[name] = {"parameters": start.parameters(start.begin(variant, None)[0]), **_summary(runs[name])}
    ours, *others = variants
    for other in others:
        found[f"{ours} less {other}"] = _summary(
            [
                {
                    name: mine[name] - theirs[name]
                    for name in ("dice", "dice_server", "hd95")
                    if name in mine and name in theirs
                }
                for mine, theirs in zip(runs[ours], runs[other], strict=True)
            ]
        )
    return found


def _trained(config: VolumesConfig, data: Path | None, quiet: bool) -> dict[str, float]:
    """Numbers of a training; one that is finished is read, one that was interrupted goes on."""
    words = json.dumps([configuration.to_dict(config), None if data is None else data.name])
    run = RunDirectory(folder() / "claims" / hashlib.sha256(words.encode()).hexdigest()[:16], quiet=True)
    finished = run.path / "metrics.json"
    if finished.is_file():
        measured = json.loads(finished.read_text())
    else:
        resume = (run.path / "config.yaml").is_file()
        measured = VolumeSegmentation().train(config, run, data, resume=resume, quiet=quiet)
    return measured | {"training_seconds": _seconds(run)}


def _seconds(run: RunDirectory) -> float:
    """How long a training took on the clock; each time that it was taken up its clock began anew."""
    times = [line["seconds"] for line in run.measurements() if "seconds" in line]
    return sum(time for time, following in zip(times, [*times[1:], 0.0], strict=True) if following < time)


def _summary(runs: list[dict[str, float]]) -> Mapping[str, Any]:
    """Mean and standard deviation over the seeds, and each seed's value, of what every run measured."""
    names = [name for name in runs[0] if all(name in run for run in runs)]
    summaries = {}
    for name in names:
        values = [run[name] for run in runs]
        summaries[name] = {
            "mean": mean(values),
            "deviation": stdev(values) if len(values) > 1 else 0.0,
            "seeds": values,
        }
    return summaries


def _shared() -> Path:
    """``FOVEA_SHARED_DATA``, else ``../shared/data`` beside the working folder or the source tree."""
    if named := os.environ.get(DATA):
        return Path(named)
    places = (Path.cwd(), Path(__file__).resolve().parents[4])
    found = [place.parent / "shared" / "data" for place in places]
    return next((place for place in found if place.is_dir()), found[0])
