"""One method on one split of one seed: trained, tested, and remembered in a folder, so that it is done once."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fovea import checkpoints
from fovea.data.hyperspectral.patches import Patches
from fovea.data.hyperspectral.scene import Scene
from fovea.data.hyperspectral.splits import Split
from fovea.models.lola_specvit import LoLASpecViT, SpectralCNN, freeze_all_but_adapters
from fovea.tasks.fit import fit
from fovea.tasks.run import RunDirectory
from fovea.tasks.spectral import sources
from fovea.tasks.spectral.baselines import CHANGES, SupportVectors
from fovea.tasks.spectral.config import Kind, SpectralConfig
from fovea.tasks.spectral.inference import Reader
from fovea.tasks.spectral.learner import PixelClassifier
from fovea.tasks.spectral.metrics import Scores, confusion, scores

RESULT = "trial.json"
ELSEWHERE = 1000
"""Added to the seed of a scene, it gives the scene to pre-train on."""
CHANGEABLE = ("optimisation.", "hardware.")
"""What may differ from the earlier run when one goes on."""


@dataclass(frozen=True)
class Trial:
    """What one method did on one split.

    Attributes:
        method: ``ours`` or one of ``Compared``.
        matrix: confusion over the tested pixels, rows are the truth.
        parameters, learned: of the network, and how many of them learn; 0 for what is no network.
        seconds: of training.
        validation: overall accuracy on the validation pixels, percent; none without any.
    """

    method: str
    kind: Kind
    seed: int
    matrix: tuple[tuple[int, ...], ...]
    parameters: int
    learned: int
    seconds: float
    validation: float | None

    @property
    def scores(self) -> Scores:
        return scores(np.asarray(self.matrix))


@dataclass(frozen=True, eq=False)
class Lesson:
    """A scene and the pixels of it that are learned from, validated and tested."""

    scene: Scene
    kind: Kind
    seed: int
    split: Split


def lessons(config: SpectralConfig, data: Path | None) -> list[Lesson]:
    """All splits of all seeds, the first kind of the first seed first; noise and generated scenes differ by seed."""
    found = []
    for seed in range(config.seed, config.seed + config.seeds):
        scene = sources.labelled(config, data, seed)
        found += [Lesson(scene, kind, seed, sources.split(config, scene, kind, seed)) for kind in config.split.kinds]
    return found


def build(config: SpectralConfig, scene: Scene, seed: int, start: nn.Module | None = None) -> nn.Module:
    """The network to train: random by the seed, or with what fits of ``start``; what does not learn is frozen."""
    torch.manual_seed(seed)
    network = (LoLASpecViT if config.model == "lola-specvit" else SpectralCNN)(config.network)
    if start is not None:
        given, wanted = start.state_dict(), network.state_dict()
        network.load_state_dict(
            {
                name: given[name] if name in given and given[name].shape == old.shape else old
                for name, old in wanted.items()
            }
        )
    if config.trained != "all":
        freeze_all_but_adapters(network, head=config.trained == "adapters+head")
    return network


def train(
    config: SpectralConfig,
    lesson: Lesson,
    run: RunDirectory,
    *,
    start: nn.Module | None = None,
    method: str = "ours",
    resume: bool = False,
    quiet: bool = False,
) -> tuple[Trial, Reader]:
    """Train a network of this configuration on one lesson inside a run that has been started."""
    began = time.perf_counter()
    scene, split = lesson.scene, lesson.split
    assert scene.labels is not None
    config = for_scene(config, scene)
    network = build(config, scene, lesson.seed, start)
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    fitted = sources.components(config, scene, split)
    reader = Reader(network, fitted, config.patch, config.features.patches, config.average_turns)
    patches, labels = reader.patches(scene), scene.labels.ravel()

    def validated(averaged: nn.Module) -> dict[str, float]:
        if not len(split.validation):
            return {}
        estimate = replace(reader, network=averaged).classes(patches, split.validation)
        return {"validation_oa": 100 * float((estimate == labels[split.validation] - 1).mean())}

    extra = {
        "components": fitted.to_dict(),
        "standardise": config.features.patches,
        "average_turns": config.average_turns,
        "classes": list(scene.classes),
        "numbers": list(scene.numbers),
        "known": {"scene": sources.fingerprint(scene), "places": split.known.tolist()},
    }
    learner = PixelClassifier(
        network, patches, split.train, labels[split.train] - 1, config, lesson.seed, validated, extra
    )
    taught = fit(
        learner,
        config.optimisation,
        run,
        seed=lesson.seed,
        hardware=config.hardware,
        resume=resume,
        quiet=quiet,
        title=f"{method}, {lesson.kind} split",
    )
    seconds = time.perf_counter() - began
    reader = replace(reader, network=taught)
    matrix = tested(reader, patches, lesson)
    parameters = sum(p.numel() for p in taught.parameters())
    validation = validated(taught).get("validation_oa")
    return _trial(method, lesson, matrix, parameters, learned, seconds, validation), reader


def support_vectors(config: SpectralConfig, lesson: Lesson) -> tuple[Trial, SupportVectors]:
    """The support vector machine on the same pixels, those of validation included."""
    began = time.perf_counter()
    machine = SupportVectors(lesson.scene, lesson.split.known, config.svm_c)
    seconds = time.perf_counter() - began
    assert lesson.scene.labels is not None
    truth = lesson.scene.labels.ravel()[lesson.split.test] - 1
    matrix = confusion(truth, machine.classes(lesson.split.test), len(lesson.scene.classes))
    return _trial("svm", lesson, matrix, 0, 0, seconds, None), machine


def tested(reader: Reader, patches: Patches, lesson: Lesson) -> NDArray[np.int64]:
    """The confusion matrix over the tested pixels."""
    assert lesson.scene.labels is not None
    truth = lesson.scene.labels.ravel()[lesson.split.test] - 1
    return confusion(truth, reader.classes(patches, lesson.split.test), len(lesson.scene.classes))


def compared(
    config: SpectralConfig,
    lesson: Lesson,
    method: str,
    folder: Path,
    *,
    start: nn.Module | None = None,
    quiet: bool = False,
) -> Trial:
    """A method beside ours, in a folder of its own; what is finished is read, what was interrupted goes on."""
    if (folder / RESULT).is_file():
        return _read(folder / RESULT)
    if method == "svm":
        trial, _ = support_vectors(config, lesson)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        changed = replace(CHANGES[method](config) if method in CHANGES else config, seed=lesson.seed)
        run = RunDirectory(folder, quiet=True)
        resume = (folder / "config.yaml").is_file()
        run.start(changed, seed=lesson.seed, resume=resume, changeable=CHANGEABLE)
        trial, _ = train(changed, lesson, run, start=start, method=method, resume=resume, quiet=quiet)
    remember(trial, folder)
    return trial


def elsewhere(config: SpectralConfig, seed: int, folder: Path, *, quiet: bool = False) -> nn.Module:
    """A network trained on another, generated scene: what ``pretrained`` begins with."""
    data = replace(config.data, key=None, label_key=None, classes=(), noise=0.0)
    other = replace(config, data=data, split=replace(config.split, train=0.3), trained="all")
    scene = sources.labelled(other, None, seed + ELSEWHERE)
    lesson = Lesson(scene, "random", seed, sources.split(other, scene, "random", seed))
    compared(other, lesson, "ours", folder, quiet=quiet)
    return checkpoints.load(folder / "checkpoint").network


def remember(trial: Trial, folder: Path) -> None:
    """Write the trial into its folder."""
    RunDirectory(folder, quiet=True).write(RESULT, lambda path: path.write_text(json.dumps(asdict(trial)) + "\n"))


def for_scene(config: SpectralConfig, scene: Scene) -> SpectralConfig:
    """The configuration with as many classes as the scene has."""
    return replace(config, network=replace(config.network, num_classes=len(scene.classes)))


def _read(path: Path) -> Trial:
    values: dict[str, Any] = json.loads(path.read_text())
    values["matrix"] = tuple(map(tuple, values["matrix"]))
    return Trial(**values)


def _trial(
    method: str,
    lesson: Lesson,
    matrix: NDArray[np.int64],
    parameters: int,
    learned: int,
    seconds: float,
    validation: float | None,
) -> Trial:
    rows = tuple(tuple(int(count) for count in row) for row in matrix)
    return Trial(method, lesson.kind, lesson.seed, rows, parameters, learned, round(seconds, 2), validation)
