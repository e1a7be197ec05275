"""Segmentation of slices from end to end: train, evaluate, predict, and the demonstration beside a plain U-Net."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fovea import checkpoints
from fovea.errors import UserError
from fovea.tasks.devices import device_of
from fovea.tasks.fit import fit
from fovea.tasks.progress import bar
from fovea.tasks.run import RunDirectory
from fovea.tasks.slices import measure, predict, sources, start
from fovea.tasks.slices.best import Best
from fovea.tasks.slices.config import SlicesConfig
from fovea.tasks.slices.learner import Segmenter
from fovea.tasks.slices.measure import Result
from fovea.tasks.slices.page import page
from fovea.tasks.slices.sources import Examples, Scan, Source
from fovea.tasks.task import Task

CHANGEABLE = ("optimisation.", "hardware.")
"""What may differ from the earlier run when one goes on."""
VALIDATED = 16
"""Cases that are measured on the way of a training; all of them at its end."""
NAMES = {"hbformer": "HBFormer", "unet": "U-Net"}


class Segmentation(Task):
    """Networks that segment slices of CT and MRI: organs and very small tumours."""

    config = SlicesConfig

    def run(
        self, config: SlicesConfig, run: RunDirectory, *, resume: bool = False, quiet: bool = False
    ) -> dict[str, float]:
        """Train on generated slices, a plain U-Net of about as many parameters beside it, and show both."""
        began = time.perf_counter()
        source = sources.generated(config)
        rival = replace(config, model="unet")
        run.start(config, seed=config.seed, resume=resume, changeable=CHANGEABLE)
        beside = RunDirectory(run.path / "baseline", quiet=True)
        again = resume and (beside.path / "config.yaml").is_file()
        network, _ = _begun(config, None, source)
        network = _taught(network, config, run, source, resume=resume, quiet=quiet)
        beside.start(rival, seed=config.seed, resume=again, changeable=CHANGEABLE)
        other, _ = _begun(rival, None, source)
        other = _taught(other, rival, beside, source, resume=again, quiet=quiet)
        names = NAMES[config.model], "plain U-Net"
        compared = {
            name: (_results(taught, source, quiet=quiet), start.parameters(taught))
            for name, taught in zip(names, (network, other), strict=True)
        }
        ours, theirs = (measure.summary(found, source.classes) for found, _ in compared.values())
        measured = ours | {f"baseline_{name}": value for name, value in theirs.items()}
        lead = (
            f"{names[0]} learned here for {config.optimisation.steps} steps ({_seconds(run):.0f} s) to find an organ "
            "and very small tumours in slices that are generated; a plain U-Net of about as many parameters for as "
            f"many ({_seconds(beside):.0f} s). Both are measured on {len(source)} slices that neither has seen."
        )
        curves = {names[0]: run, names[1]: beside}
        page(run, config, compared, source.classes, title="Small tumours in slices", lead=lead, curves=curves).write(
            run.report
        )
        run.finish(measured)
        for name, values in zip(names, (ours, theirs), strict=True):
            _tell(run, values, name)
        run.say(f"{time.perf_counter() - began:.0f} s; the page to look at: {run.report}")
        return measured

    def train(
        self,
        config: SlicesConfig,
        run: RunDirectory,
        data: Path | None,
        *,
        checkpoint: Path | None = None,
        resume: bool = False,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Train on a folder of slices or volumes (or generated slices), from a checkpoint or from new weights."""
        source = sources.generated(config) if data is None else sources.folder(config, data, quiet=quiet)
        if config.optimisation.epochs:
            config = replace(config, optimisation=config.optimisation.counted(len(source.training)))
        network, words = _begun(config, None if resume else checkpoint, source)
        run.start(config, seed=config.seed, resume=resume, changeable=CHANGEABLE)
        if words:
            run.say(words)
        network = _taught(network, config, run, source, resume=resume, quiet=quiet)
        found = _results(network, source, quiet=quiet)
        measured = measure.summary(found, source.classes)
        name = NAMES[config.model]
        lead = f"Trained for {int(run.measurements()[-1]['step'])} steps, "
        if source.validation:
            lead += f"of which step {Best(run, 0).step} was the best on {source.validation} cases kept back; "
        lead += f"measured on {len(found)} cases it is not trained on."
        compared = {name: (found, start.parameters(network))}
        title = f"{name}: {source.name}"
        page(run, config, compared, source.classes, title=title, lead=lead, curves={name: run}).write(run.report)
        run.finish(measured)
        _tell(run, measured, name)
        return measured

    def evaluate(
        self,
        config: SlicesConfig,
        checkpoint: Path | None,
        data: Path,
        *,
        run: RunDirectory | None = None,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Dice, HD95 and recall of a checkpoint on the cases that a folder holds out (or all that it has)."""
        begun = start.load(checkpoint, config)
        network = begun.network.to(device_of(config.hardware))
        config = replace(
            config,
            data=replace(begun.data, cases_held_out=config.data.cases_held_out),
            network=replace(config.network, num_classes=len(begun.classes)),
        )
        source = sources.folder(config, data, training=False)
        found = _results(network, source, quiet=quiet)
        measured = measure.summary(found, source.classes)
        if run is not None:
            run.start(config, seed=config.seed)
            name = NAMES["unet" if type(network).__name__ == "UNet" else "hbformer"]
            compared = {name: (found, start.parameters(network))}
            page(
                run, config, compared, source.classes, title=f"{name} on {data.name}", lead=f"{len(found)} cases."
            ).write(run.report)
            run.finish(measured)
            _tell(run, measured, name)
        return measured

    def predict(
        self,
        config: SlicesConfig,
        checkpoint: Path | None,
        inputs: Sequence[Path],
        output: Path,
        *,
        quiet: bool = False,
        **options: Any,
    ) -> list[Path]:
        """Segment slices and volumes; ``options`` may change the preparation (``axis=0``, ``intensity=window``)."""
        begun = start.load(checkpoint, config)
        data = predict.changed(begun.data, options)
        return predict.predict(
            begun.network.to(device_of(config.hardware)), data, begun.classes, inputs, output, quiet=quiet
        )


def _begun(config: SlicesConfig, checkpoint: Path | None, source: Source) -> tuple[nn.Module, str]:
    """A network before its training, and what is to be said of it."""
    network, words = start.begin(config, checkpoint)
    if checkpoint is None and config.standardise:
        examples = Examples(source, config)
        first = [examples(1, position)["image"] for position in range(config.optimisation.batch)]
        start.standardise(network, torch.stack(first))
    return network, words


def _taught(
    network: nn.Module, config: SlicesConfig, run: RunDirectory, source: Source, *, resume: bool, quiet: bool
) -> nn.Module:
    """The network after its training: as it was at its best, if cases are kept back to tell, else at its last step."""
    best = Best(run, config.optimisation.patience) if source.validation else None

    def validated(averaged: nn.Module) -> dict[str, float]:
        scans = source.held_out(VALIDATED) if best is None else source.kept_back()
        found = measure.summary(_measured(averaged, scans, source), source.classes)
        kept = ("dice", "recall", *(f"dice_{name.lower().replace(' ', '_')}" for name in source.classes[1:]))
        return {name: found[name] for name in kept if name in found}

    taught = fit(
        Segmenter(network, source, config, validated, best),
        config.optimisation,
        run,
        seed=config.seed,
        hardware=config.hardware,
        resume=resume,
        quiet=quiet,
        title=f"training {NAMES[config.model]}",
    )
    return taught if best is None else checkpoints.load(best.folder).network.to(device_of(config.hardware))


def _seconds(run: RunDirectory) -> float:
    """What a training took; its clock starts anew when it is taken up again."""
    clock = [0.0, *(line["seconds"] for line in run.measurements() if "seconds" in line)]
    return sum(now - before if now >= before else now for before, now in pairwise(clock))


def _results(network: nn.Module, source: Source, *, quiet: bool) -> list[Result]:
    if not len(source):
        raise UserError(f"{source.name} has no case to measure on")
    with bar("measuring", len(source), quiet=quiet) as advance:
        return _measured(network, source.held_out(), source, advance)


def _measured(
    network: nn.Module, scans: Iterable[Scan], source: Source, progress: Callable[[], None] = lambda: None
) -> list[Result]:
    return measure.results(network, scans, source.data, len(source.classes), lits=source.lits, progress=progress)


def _tell(run: RunDirectory, values: dict[str, float], name: str) -> None:
    words = [f"Dice {values['dice']:.3f}"] if "dice" in values else []
    words += [f"HD95 {values['hd95']:.1f}"] if "hd95" in values else []
    words += [f"{100 * values['recall']:.0f} % of small structures found"] if "recall" in values else []
    run.say(f"{name}: {', '.join(words)}")
