"""Hyperspectral classification from end to end: train, test, map scenes, and the demonstration that shows all of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.errors import UserError
from fovea.tasks.progress import bar
from fovea.tasks.run import RunDirectory
from fovea.tasks.spectral import page, predict, sources, trials
from fovea.tasks.spectral.baselines import WORDS
from fovea.tasks.spectral.config import SpectralConfig
from fovea.tasks.spectral.inference import Reader, classify
from fovea.tasks.spectral.maps import write
from fovea.tasks.spectral.metrics import confusion, scores
from fovea.tasks.spectral.trials import Lesson, Trial
from fovea.tasks.task import Task

BESIDE = "beside"
"""Folder inside a run for what is trained beside the network itself."""


class Spectral(Task):
    """Networks that tell what each pixel of a hyperspectral scene is."""

    config = SpectralConfig

    def run(
        self, config: SpectralConfig, run: RunDirectory, *, resume: bool = False, quiet: bool = False
    ) -> dict[str, float]:
        """Train on a generated scene, test at random and in other places, beside the baselines; show it all."""
        lead = "A small network, trained here in minutes on a few labelled pixels of a generated scene of fields."
        return _all(config, run, None, None, lead, resume=resume, quiet=quiet)

    def train(
        self,
        config: SpectralConfig,
        run: RunDirectory,
        data: Path | None,
        *,
        checkpoint: Path | None = None,
        resume: bool = False,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Train on a scene of the user's and its label map (or a generated one), from a checkpoint or new weights."""
        name = data.name if data is not None else "a generated scene"
        lead = (
            f"Trained for {config.optimisation.steps} steps on {100 * config.split.train:.3g}% of the labels of {name}."
        )
        return _all(config, run, data, checkpoint, lead, resume=resume, quiet=quiet)

    def evaluate(
        self,
        config: SpectralConfig,
        checkpoint: Path | None,
        data: Path,
        *,
        run: RunDirectory | None = None,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Accuracies of a checkpoint on a scene's labelled pixels; those it was trained on are left out."""
        trained = predict.load(checkpoint)
        config = replace(config, network=trained.network.config, trained="all")
        scene = sources.labelled(config, data, config.seed)
        assert scene.labels is not None
        if len(scene.classes) != len(trained.classes):
            raise UserError(
                f"{data} has {len(scene.classes)} classes; the checkpoint knows {len(trained.classes)} "
                f"({', '.join(trained.classes)})"
            )
        reader = trained.reader(config, scene)
        wanted = scene.labels > 0
        known = trained.extra.get("known", {})
        if known.get("scene") == sources.fingerprint(scene):
            wanted.ravel()[np.asarray(known["places"], dtype=np.int64)] = False
        if run is not None:
            run.start(config, seed=config.seed)
        with bar(scene.name, int(wanted.sum()), quiet=quiet) as advance:
            found = classify(reader, scene, wanted=wanted, progress=lambda count: advance(steps=count))
        matrix = confusion(scene.labels[wanted] - 1, found[wanted] - 1, len(scene.classes))
        result = scores(matrix)
        measured = {"oa": result.oa, "aa": result.aa, "kappa": result.kappa, "pixels": int(wanted.sum())}
        if run is not None:
            run.write("map.png", lambda path: write(path.with_suffix(".png"), found, scene.classes, scene.numbers))
            run.finish(measured)
        return measured

    def predict(
        self,
        config: SpectralConfig,
        checkpoint: Path | None,
        inputs: Sequence[Path],
        output: Path,
        *,
        quiet: bool = False,
        **options: Any,
    ) -> list[Path]:
        """Map scenes; ``options`` are ``key``, ``labels``, ``tile`` and ``majority`` of ``predict.predict``."""
        return predict.predict(predict.load(checkpoint), config, inputs, output, quiet=quiet, **options)


def _all(
    config: SpectralConfig,
    run: RunDirectory,
    data: Path | None,
    checkpoint: Path | None,
    lead: str,
    *,
    resume: bool,
    quiet: bool,
) -> dict[str, float]:
    """The first split's network is the run's own; all others are trained in folders beside it."""
    began = time.perf_counter()
    lessons = trials.lessons(config, data)
    for lesson in lessons:  # what cannot be done is told before anything is written
        sources.components(config, lesson.scene, lesson.split)
    start = None if checkpoint is None else predict.load(checkpoint).network
    run.start(config, seed=config.seed, resume=resume, changeable=trials.CHANGEABLE)
    first = lessons[0]
    trial, reader = trials.train(config, first, run, start=start, resume=resume, quiet=quiet)
    found = [trial]
    _tell(run, trial)
    for lesson in lessons:
        for method in ("ours", *config.compare):
            if (method, lesson) == ("ours", first):
                continue
            beside = run.path / BESIDE
            begin = start
            if method == "pretrained":
                begin = trials.elsewhere(config, lesson.seed, beside / f"elsewhere-{lesson.seed}", quiet=quiet)
            folder = beside / f"{method}-{lesson.kind}-{lesson.seed}"
            found.append(trials.compared(config, lesson, method, folder, start=begin, quiet=quiet))
            _tell(run, found[-1])
    maps = _maps(config, first, reader, quiet=quiet)
    title = f"LoLA-SpecViT: {first.scene.name}"
    page.page(run, config, lessons, found, maps, title=title, lead=lead).write(run.report)
    for name in ("map.png", "map.tif"):
        write(run.path / name, maps["ours"], first.scene.classes, first.scene.numbers, first.scene.place)
    measured = _figures(config, lessons, found)
    run.finish(measured)
    run.say(f"{time.perf_counter() - began:.0f} s; the page to look at: {run.report}")
    return measured


def _maps(config: SpectralConfig, lesson: Lesson, reader: Reader, *, quiet: bool) -> dict[str, NDArray[np.int64]]:
    rows, columns = lesson.scene.size
    with bar("map", rows * columns, quiet=quiet) as advance:
        maps = {"ours": classify(reader, lesson.scene, progress=lambda count: advance(steps=count))}
    if "svm" in config.compare:
        _, machine = trials.support_vectors(config, lesson)
        maps["svm"] = machine.classes(np.arange(rows * columns)).reshape(rows, columns) + 1
    return maps


def _figures(config: SpectralConfig, lessons: Sequence[Lesson], found: Sequence[Trial]) -> dict[str, float]:
    """``random_ours_oa`` and so on: means over the seeds, and their deviations where there is more than one."""
    measured: dict[str, float] = {}
    for kind in config.split.kinds:
        for method in dict.fromkeys(trial.method for trial in found):
            for name, (value, deviation) in page.summary(found, method, kind).items():
                measured[f"{kind}_{method}_{name}".replace("-", "_")] = value
                if config.seeds > 1:
                    measured[f"{kind}_{method}_{name}_deviation".replace("-", "_")] = deviation
    for lesson in lessons[: len(config.split.kinds)]:
        leak = lesson.split.leakage(config.patch)
        measured |= {f"{lesson.kind}_leakage_pixel": leak.pixel, f"{lesson.kind}_leakage_patch": leak.patch}
    return measured


def _tell(run: RunDirectory, trial: Trial) -> None:
    score = trial.scores
    run.say(
        f"{WORDS[trial.method]}, {trial.kind} split, seed {trial.seed}: overall {score.oa:.2f}%, "
        f"average {score.aa:.2f}%, kappa {score.kappa:.2f}"
    )
