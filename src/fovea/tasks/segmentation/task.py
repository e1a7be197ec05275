"""Segmentation of volumes from end to end: train, evaluate, predict, and the demonstration beside a plain U-Net."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fovea.tasks.devices import device_of
from fovea.tasks.fit import fit, rehearse
from fovea.tasks.run import RunDirectory
from fovea.tasks.segmentation import measure, predict, sources, start
from fovea.tasks.segmentation.config import VolumesConfig
from fovea.tasks.segmentation.learner import Segmenter
from fovea.tasks.segmentation.page import page
from fovea.tasks.segmentation.sources import Source
from fovea.tasks.task import Task

CHANGEABLE = ("optimisation.", "hardware.")
"""What may differ from the earlier run when one goes on."""
VALIDATED = 3
"""Cases that are measured on the way of a training; all of them at its end."""
NAMES = {"swin-unetr": "Swin UNETR", "unet": "plain U-Net"}


class VolumeSegmentation(Task):
    """Networks that segment volumes: brain tumours in several MRI contrasts, organs."""

    config = VolumesConfig

    def run(
        self, config: VolumesConfig, run: RunDirectory, *, resume: bool = False, quiet: bool = False
    ) -> dict[str, float]:
        """Train on generated phantoms, a plain U-Net of about as many parameters beside it, and show both."""
        began = time.perf_counter()
        source = sources.generated(config)
        rival = replace(config, model="unet")
        learner = _learner(start.begin(config, None)[0], config, source)
        rehearse(learner, config.hardware)
        run.start(config, seed=config.seed, resume=resume, changeable=CHANGEABLE)
        beside = RunDirectory(run.path / "baseline", quiet=True)
        again = resume and (beside.path / "config.yaml").is_file()
        network = _taught(learner, config, run, resume=resume, quiet=quiet)
        beside.start(rival, seed=config.seed, resume=again, changeable=CHANGEABLE)
        other = _learner(start.begin(rival, None)[0], rival, source)
        other = _taught(other, rival, beside, resume=again, quiet=quiet)
        names = NAMES[config.model], NAMES["unet"]
        compared = {
            name: (measure.results(taught, source, config.data, quiet=quiet), start.parameters(taught))
            for name, taught in zip(names, (network, other), strict=True)
        }
        ours, theirs = (measure.summary(found, source.coding) for found, _ in compared.values())
        measured = ours | {f"baseline_{name}": value for name, value in theirs.items()}
        lead = (
            f"{names[0]} learned here in a few minutes to find tumours and their parts in generated brains of four MRI "
            f"contrasts; a plain U-Net learned the same for as many steps. {len(source.held_out)} brains were held out."
        )
        curves = {names[0]: run, names[1]: beside}
        report = page(
            run, config, compared, source.coding, title="Lesions of all sizes in volumes", lead=lead, curves=curves
        )
        report.write(run.report)
        run.finish(measured)
        for name, values in zip(names, (ours, theirs), strict=True):
            _tell(run, values, name)
        run.say(f"{time.perf_counter() - began:.0f} s; the page to look at: {run.report}")
        return measured

    def train(
        self,
        config: VolumesConfig,
        run: RunDirectory,
        data: Path | None,
        *,
        checkpoint: Path | None = None,
        resume: bool = False,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Train on the user's volumes (or generated ones), from a checkpoint, an encoder, or new weights."""
        source = sources.generated(config) if data is None else sources.folder(config, data)
        network, words = start.begin(config, None if resume else checkpoint)
        learner = _learner(network, config, source)
        rehearse(learner, config.hardware)
        run.start(config, seed=config.seed, resume=resume, changeable=CHANGEABLE)
        if words:
            run.say(words)
        network = _taught(learner, config, run, resume=resume, quiet=quiet)
        found = measure.results(network, source, config.data, quiet=quiet)
        measured = measure.summary(found, source.coding)
        name = NAMES[config.model]
        lead = f"Trained for {config.optimisation.steps} steps; measured on {len(found)} volumes it is not trained on."
        compared = {name: (found, start.parameters(network))}
        title = f"{name}: {source.name}"
        page(run, config, compared, source.coding, title=title, lead=lead, curves={name: run}).write(run.report)
        run.finish(measured)
        _tell(run, measured, name)
        return measured

    def evaluate(
        self,
        config: VolumesConfig,
        checkpoint: Path | None,
        data: Path,
        *,
        run: RunDirectory | None = None,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Dice and HD95 of a checkpoint on the cases that the data hold out (or, fewer than that, all)."""
        begun = start.load(checkpoint, config)
        network = begun.network.to(device_of(config.hardware))
        kept = {name: getattr(config.data, name) for name in ("fold", "held_out", "overlap", "blend", "flips")}
        channels = network.config
        config = replace(
            config,
            data=replace(begun.data, **kept),
            network=replace(
                config.network, in_channels=channels.in_channels, out_channels=channels.out_channels, spatial_axes=3
            ),
        )
        source = sources.folder(config, data, training=False)
        found = measure.results(network, source, config.data, quiet=quiet)
        measured = measure.summary(found, source.coding)
        if run is not None:
            run.start(config, seed=config.seed)
            name = NAMES["unet" if type(network).__name__ == "VolumeUNet" else "swin-unetr"]
            compared = {name: (found, start.parameters(network))}
            title, lead = f"{name} on {data.stem}", f"{len(found)} volumes."
            page(run, config, compared, source.coding, title=title, lead=lead).write(run.report)
            run.finish(measured)
            _tell(run, measured, name)
        return measured

    def predict(
        self,
        config: VolumesConfig,
        checkpoint: Path | None,
        inputs: Sequence[Path],
        output: Path,
        *,
        quiet: bool = False,
        **options: Any,
    ) -> list[Path]:
        """Segment cases; ``options`` are ``overlap``, ``blend``, ``flips``, ``roi`` and ``modalities``."""
        begun = start.load(checkpoint, config)
        data, network = predict.changed(begun.data, options), begun.network.to(device_of(config.hardware))
        channels = network.config.in_channels
        return predict.predict(network, data, begun.coding, inputs, output, channels=channels, quiet=quiet)


def _learner(network: nn.Module, config: VolumesConfig, source: Source) -> Segmenter:
    few = Source(source.name, source.coding, source.training, source.held_out[:VALIDATED])

    def validated(averaged: nn.Module) -> dict[str, float]:
        found = measure.summary(measure.results(averaged, few, config.data), source.coding)
        kept = ("dice", "hd95", *(f"dice_{name.lower().replace(' ', '_')}" for name in source.coding.names))
        return {name: found[name] for name in kept if name in found}

    return Segmenter(network, source, config, validated)


def _taught(learner: Segmenter, config: VolumesConfig, run: RunDirectory, *, resume: bool, quiet: bool) -> nn.Module:
    return fit(
        learner,
        config.optimisation,
        run,
        seed=config.seed,
        hardware=config.hardware,
        resume=resume,
        quiet=quiet,
        title=f"training {NAMES[config.model]}",
    )


def _tell(run: RunDirectory, values: dict[str, float], name: str) -> None:
    words = [f"Dice {values['dice']:.3f}"] if "dice" in values else []
    words += [f"HD95 {values['hd95']:.1f} mm"] if "hd95" in values else []
    run.say(f"{name}: {', '.join(words)}")
