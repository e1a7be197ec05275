"""Restoration from end to end: train, evaluate, restore photographs, and the demonstration that shows all of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fovea.errors import UsageError, UserError, unknown
from fovea.models.hat import HAT
from fovea.tasks.devices import device_of
from fovea.tasks.fit import Batch, fit, rehearse
from fovea.tasks.progress import bar
from fovea.tasks.restoration import measure, predict, sources, start
from fovea.tasks.restoration.config import RestorationConfig
from fovea.tasks.restoration.degradations import real_pairs
from fovea.tasks.restoration.learner import AdversarialRestorer, Restorer
from fovea.tasks.restoration.losses import perceptual
from fovea.tasks.restoration.page import page, where_it_looked
from fovea.tasks.restoration.pictures import Restoration as Restored
from fovea.tasks.run import RunDirectory
from fovea.tasks.task import Task

CHANGEABLE = ("optimisation.", "hardware.")
"""What may differ from the earlier run when one goes on."""


class Restoration(Task):
    """Networks that restore images: super-resolution, denoising, JPEG artefacts, real photographs."""

    config = RestorationConfig

    def run(
        self, config: RestorationConfig, run: RunDirectory, *, resume: bool = False, quiet: bool = False
    ) -> dict[str, float]:
        """Train on photographs at hand, restore those held out, and show it all in ``report.html``."""
        began = time.perf_counter()
        network, told = start.begin(config, None)
        pairs = sources.validation(config)
        learner = _learner(network, config, pairs, None)
        rehearse(learner, config.hardware)
        _started(run, config, told, resume=resume)
        if not resume:
            run.measure(step=0, **measure.summary(network.eval(), pairs, config))
        network = _taught(learner, config, run, resume=resume, quiet=quiet)
        results = measure.restored(network, pairs, config)
        looked = where_it_looked(network, results[0])
        measured = measure.means(results) | {"diffusion_index": looked[1].diffusion_index}
        untrained = next((line["psnr"] for line in run.measurements() if line["step"] == 0), None)
        if untrained is not None:
            measured["untrained_psnr"] = untrained
        shipped = []
        if config.weights is not None:
            shipped = measure.restored(start.load(None, config).to(device_of(config.hardware)), pairs, config)
            measured |= {f"shipped_{name}": measure.means(shipped)[name] for name in ("psnr", "ssim")}
        names = ", ".join(pair.name for pair in pairs)
        page(
            run,
            config,
            results,
            title=f"HAT x{config.scale}: photographs restored",
            lead=f"A small HAT, trained here in a few minutes, restores photographs it has never seen ({names}).",
            untrained=untrained,
            looked=looked,
            shipped=shipped,
        ).write(run.report)
        run.finish(measured)
        for result in results:
            _tell(run, result, config)
        for result in shipped:
            _tell(run, result, config, "the weights that come with fovea")
        run.say(f"{time.perf_counter() - began:.0f} s; the page to look at: {run.report}")
        return measured

    def train(
        self,
        config: RestorationConfig,
        run: RunDirectory,
        data: Path | None,
        *,
        checkpoint: Path | None = None,
        resume: bool = False,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Train on a folder of images (or photographs at hand), from a checkpoint or from new weights."""
        if data is not None and not data.is_dir():
            raise UsageError(f"data={data}; it must be a folder of images")
        goes_on = resume and run.last.is_file()
        network, told = (HAT(config.network), []) if goes_on else start.begin(config, checkpoint)
        pairs = sources.validation(config)
        learner = _learner(network, config, pairs, data)
        rehearse(learner, config.hardware)
        _started(run, config, told, resume=resume)
        network = _taught(learner, config, run, resume=resume, quiet=quiet)
        results = measure.restored(network, pairs, config)
        measured = measure.means(results)
        lead = f"Trained for {config.optimisation.steps} steps; measured on images it is not trained on."
        page(run, config, results, title=f"HAT x{config.scale}: training", lead=lead).write(run.report)
        run.finish(measured)
        for result in results:
            _tell(run, result, config)
        return measured

    def evaluate(
        self,
        config: RestorationConfig,
        checkpoint: Path | None,
        data: Path,
        *,
        run: RunDirectory | None = None,
        quiet: bool = False,
    ) -> dict[str, float]:
        """PSNR and SSIM of a checkpoint on a folder, beside bicubic; the scale is the checkpoint's own."""
        network = start.load(checkpoint, config).to(device_of(config.hardware))
        config = replace(config, network=network.config, data=replace(config.data, patch=network.multiple))
        if run is not None:
            run.check(config)
        count = len(sources.folders.pairs(data, config.scale))
        results: list[Restored] = []
        with bar(data.name, count, quiet=quiet) as advance:
            for pair in sources.evaluation(config, data):
                try:
                    results += measure.restored(network, [pair], config)
                except ValueError as error:
                    raise UserError(f"{data}, {pair.name}: {error}") from error
                advance({"psnr": results[-1].measured["psnr"]})
        measured = measure.means(results)
        if run is not None:
            run.start(config, seed=config.seed)
            page(run, config, results, title=f"HAT x{config.scale} on {data.name}", lead=f"{count} images.").write(
                run.report
            )
            run.finish(measured)
            for result in results:
                _tell(run, result, config)
        return measured

    def predict(
        self,
        config: RestorationConfig,
        checkpoint: Path | None,
        inputs: Sequence[Path],
        output: Path,
        *,
        quiet: bool = False,
        **options: Any,
    ) -> list[Path]:
        """Restore photographs; ``options`` are those of ``predict.predict`` (``OPTIONS``)."""
        for name in options:
            if name not in predict.OPTIONS:
                raise unknown("option", name, predict.OPTIONS)
        network = start.load(checkpoint, config).to(device_of(config.hardware))
        return predict.predict(network, inputs, output, quiet=quiet, **options)


def _started(run: RunDirectory, config: RestorationConfig, told: Sequence[str], *, resume: bool) -> None:
    """Make the folder, once everything that could be refused has been tried."""
    run.start(config, seed=config.seed, resume=resume, changeable=CHANGEABLE)
    for line in told:
        run.say(line)


def _taught(learner: Restorer, config: RestorationConfig, run: RunDirectory, *, resume: bool, quiet: bool) -> HAT:
    taught = fit(
        learner,
        config.optimisation,
        run,
        seed=config.seed,
        hardware=config.hardware,
        resume=resume,
        quiet=quiet,
        title=f"training HAT x{config.scale}",
    )
    assert isinstance(taught, HAT)
    return taught


def _learner(network: HAT, config: RestorationConfig, pairs: list[sources.Pair], data: Path | None) -> Restorer:
    examples = sources.training(config, data)

    def validated(averaged: nn.Module) -> dict[str, float]:
        return measure.summary(averaged, pairs, config)

    def degrade(batch: Batch) -> Batch:
        return real_pairs(batch, config.scale, config.data.patch)

    if config.stage == "real-gan":
        features = perceptual(config.adversary.perceptual)
        return AdversarialRestorer(network, examples, validated, degrade, config.adversary, features)
    return Restorer(network, examples, validated, degrade if config.stage == "real" else None)


def _tell(run: RunDirectory, result: Restored, config: RestorationConfig, ours: str = "ours") -> None:
    before, after = result.measured["baseline_psnr"], result.measured["psnr"]
    run.say(f"{result.name}: {measure.baseline(config)} {before:.2f} dB, {ours} {after:.2f} dB ({after - before:+.2f})")
