"""LoLA-SpecViT's claims at a size that two processor cores can hold (arXiv 2506.17759).

The scene is Jasper Ridge (AVIRIS, 100 x 100 pixels): the class of a pixel is its most abundant material, and noise as
strong as each band's own variation is added, without which single pixels suffice. It is looked for in the folder
``FOVEA_JASPER_RIDGE`` or ``../shared/data/jasper_ridge``.

Every training is a folder in the user's cache: what is finished is not trained again, what was interrupted goes on.
The functions return numbers and no verdicts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fovea.errors import UserError
from fovea.kernels.cache import folder
from fovea.models.lola_specvit_config import LoLASpecViTConfig
from fovea.tasks import configuration
from fovea.tasks.optimisation import Hardware, Optimisation
from fovea.tasks.spectral import trials
from fovea.tasks.spectral.baselines import changed
from fovea.tasks.spectral.config import Data, Features, Kind, SpectralConfig, Split
from fovea.tasks.spectral.trials import Trial

SEEDS = 3
SHARES = (0.02, 0.1)
STEPS = {0.02: 350, 0.1: 490}
"""Of training, by the share of the labels; the first of three cycles is a seventh of them."""
NETWORK = LoLASpecViTConfig(
    in_channels=6,
    dim=16,
    depths=(1, 1, 1),
    num_heads=(2, 2, 4),
    window_size=(3, 3, 3),
    mlp_ratio=2.0,
    spatial_size=5,
    r=4,
    lora_alpha=8.0,
    front=(8, 16),
    squeeze=4,
    drop_path_rate=0.1,
)
METHODS: tuple[str, ...] = ("ours", "svm", "cnn")
ADAPTED: tuple[str, ...] = ("ours", "no-attention", "no-lora", "adapters", "pretrained")
SWITCHED: tuple[str, ...] = ("ours", "gated", "steady", "modulated", "unfocused", "standardised", "official")


def few_labels(*, quiet: bool = False) -> dict[str, Any]:
    """Ours, its convolutions alone, and the support vector machine, on random and on disjoint splits of 2% and 10%."""
    measured: dict[str, Any] = {"data": "Jasper Ridge, most abundant material, noise 1.0 of each band's deviation"}
    for share in SHARES:
        for kind in ("random", "disjoint"):
            for method in METHODS:
                measured[f"{100 * share:g}% {kind}, {method}"] = _summary(_trials(method, share, kind, quiet))
    return measured


def adapters(*, quiet: bool = False) -> dict[str, Any]:
    """Everything learns; attention or adapters left out; adapters alone on random weights; adapters and head on a
    network trained on a generated scene. 10%, random split."""
    found = {method: _trials(method, 0.1, "random", quiet) for method in ADAPTED}
    return {"data": "Jasper Ridge as in few-labels, 10% random"} | {
        name: _summary(runs) for name, runs in found.items()
    }


def switches(*, quiet: bool = False) -> dict[str, Any]:
    """One switch at a time: gated adapters, one rate instead of cycles, cycles that move the adapters' scale too, whole
    patches, standardised patches, and the published code's recipe. 10%, random split, one seed."""
    found = {method: _trials(method, 0.1, "random", quiet, seeds=1) for method in SWITCHED}
    return {"data": "Jasper Ridge as in few-labels, 10% random, one seed"} | {
        name: _summary(runs) for name, runs in found.items()
    }


def jasper_ridge() -> Path:
    """The folder of the scene.

    Raises:
        UserError: it is not there.
    """
    places = [os.environ.get("FOVEA_JASPER_RIDGE"), "../shared/data/jasper_ridge"]
    for place in filter(None, places):
        if (Path(place) / "JasperRidge.mat").is_file():
            return Path(place)
    raise UserError("the claims need the scene Jasper Ridge: name its folder in FOVEA_JASPER_RIDGE")


def configured(share: float) -> SpectralConfig:
    """How the claims train.

    Focus, smoothing, dropout, whitening, the rate and the convolutions' own were compared by cross-validation among the
    pixels to learn from (10%, random split, first seed); tested pixels chose nothing. So no pixel has to be held back
    here.
    """
    return SpectralConfig(
        network=NETWORK,
        data=Data(label_key="abundance", noise=1.0),
        features=Features(whiten=False, focus=0.8),
        split=Split(train=share, area=0.3, validation=0.0),
        optimisation=Optimisation(
            steps=STEPS[share],
            batch=32,
            algorithm="adamw",
            lr=1e-3,
            betas=(0.9, 0.999),
            weight_decay=0.01,
            warmup=20,
            gradient_clip=1.0,
            ema=0.99,
            validate_every=STEPS[share],
            checkpoint_every=200,
        ),
        cycle=STEPS[share] // 7,
        smoothing=0.0,
        svm_c=10.0,
        hardware=Hardware(accelerator="cpu"),
    )


def _trials(method: str, share: float, kind: Kind, quiet: bool, seeds: int | None = None) -> list[Trial]:
    """One trial a seed (``SEEDS`` unless given), each in a folder named by all that it depends on."""
    found = []
    for seed in range(SEEDS if seeds is None else seeds):
        config = replace(configured(share), split=replace(configured(share).split, kinds=(kind,)), seed=seed)
        words = json.dumps([configuration.to_dict(changed(config, method)), method])
        place = folder() / "claims" / f"spectral-{hashlib.sha256(words.encode()).hexdigest()[:16]}"
        if (earlier := trials.recalled(place)) is not None:
            found.append(earlier)
            continue
        (lesson,) = trials.lessons(config, jasper_ridge())
        start = None
        if method == "pretrained":
            start = trials.elsewhere(config, seed, place.with_name(f"{place.name}-elsewhere"), quiet=quiet)
        found.append(trials.compared(config, lesson, method, place, start=start, quiet=quiet))
    return found


def _summary(runs: Sequence[Trial]) -> dict[str, Any]:
    """Mean, deviation and each seed's value of the three figures (of one seed, the value alone), and what learned."""
    summary: dict[str, Any] = {"learned": runs[0].learned, "parameters": runs[0].parameters}
    for name in ("oa", "aa", "kappa"):
        values = [round(getattr(trial.scores, name), 3) for trial in runs]
        if len(values) == 1:
            summary[name] = values[0]
        else:
            summary[name] = {"mean": round(mean(values), 3), "deviation": round(stdev(values), 3), "seeds": values}
    return summary
