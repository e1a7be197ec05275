"""Scenes in, maps of classes out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fovea import checkpoints
from fovea.checkpoints.reading import read
from fovea.data.hyperspectral.features import Components
from fovea.data.hyperspectral.scene import Scene, read_scene, with_labels
from fovea.errors import UsageError, UserError
from fovea.models.lola_specvit import LoLASpecViT, SpectralCNN
from fovea.tasks.progress import bar
from fovea.tasks.spectral import maps, sources
from fovea.tasks.spectral.config import SpectralConfig
from fovea.tasks.spectral.inference import TILE, Reader, classify


@dataclass(frozen=True, eq=False)
class Trained:
    """A network and what was saved with it; official checkpoints were saved with nothing.

    Attributes:
        extra: components, classes and the pixels learned from.
    """

    network: LoLASpecViT | SpectralCNN
    extra: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.extra.get("classes") or (f"class {k + 1}" for k in range(self.network.config.num_classes)))

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self.extra.get("numbers") or range(1, self.network.config.num_classes + 1))

    def reader(self, config: SpectralConfig, scene: Scene) -> Reader:
        """What reads this scene. Without components of its own (official weights), the network gets those of the whole
        scene and standardised patches, as the published code has it."""
        side = self.network.config.spatial_size
        sources.fits(scene, side)
        if "components" in self.extra:
            fitted = Components.from_dict(self.extra["components"])
            if fitted.bands != scene.cube.shape[2]:
                raise UserError(
                    f"{scene.name} has {scene.cube.shape[2]} bands; the checkpoint was trained on {fitted.bands}"
                )
            average = self.extra["average_turns"]
            return Reader(self.network, fitted, side, self.extra["standardise"], average)
        fitted = sources.components(_as_published(config, self.network), scene, None)
        return Reader(self.network, fitted, side, "patch")


def load(checkpoint: Path | None) -> Trained:
    """A checkpoint: a run's folder, a checkpoint folder, or an official file.

    Raises:
        UserError: there is none, or it holds something else.
    """
    if checkpoint is None:
        raise UserError(
            "no checkpoint is given, and no weights come with fovea: train on your scene, then --checkpoint"
        )
    if not checkpoint.exists():
        raise UserError(f"there is no checkpoint {checkpoint}")
    path = checkpoint / "checkpoint" if (checkpoint / "checkpoint").is_dir() else checkpoint
    if path.is_file() and path.suffix in (".pth", ".pt"):
        network, extra = checkpoints.load_official("lola-specvit", read(path)), {}
    else:
        found = checkpoints.load(path)
        network, extra = found.network, found.extra
    if not isinstance(network, LoLASpecViT | SpectralCNN):
        raise UserError(f"{path} holds a {type(network).__name__}; spectra need a LoLASpecViT")
    for name, tensor in network.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path} is damaged: weight {name} holds values that are not finite")
    return Trained(network, extra)


def predict(
    trained: Trained,
    config: SpectralConfig,
    inputs: Sequence[Path],
    output: Path,
    *,
    key: str | None = None,
    labels: str | None = None,
    tile: int = TILE,
    majority: int = 0,
    quiet: bool = False,
) -> list[Path]:
    """Classify scenes and write their maps to ``output``: a file for one input, else a folder. Returns the files.

    Args:
        key: name of the cube in its file.
        labels: a label map; only its labelled pixels are classified, and the others are 0.
        tile: side of the tiles that are in memory one at a time.
        majority: side of the square whose most frequent class each pixel takes; 0 takes the pixel's own.
    """
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1:
        raise UsageError(f"tile={tile}; it must be a side in pixels")
    if not isinstance(majority, int) or majority < 0 or majority == 1 or (majority and majority % 2 == 0):
        raise UsageError(f"majority={majority}; it must be 0 or an odd side from 3 pixels on")
    targets = _targets(inputs, output)
    written = []
    for path, target in zip(inputs, targets, strict=True):
        scene = read_scene(path, key)
        reader = trained.reader(config, scene)
        wanted = None
        if labels is not None:
            known = with_labels(scene, Path(labels)).labels
            assert known is not None
            wanted = known > 0
        count = scene.size[0] * scene.size[1] if wanted is None else int(wanted.sum())
        with bar(path.name, count, quiet=quiet) as advance:
            found = classify(
                reader,
                scene,
                tile=tile,
                wanted=wanted,
                progress=lambda count: advance(steps=count),
            )
        if majority:
            found = maps.majority(found, majority)
        written.append(maps.write(target, found, trained.classes, trained.numbers, scene.place))
        if not quiet:
            size = f"{scene.size[0]} x {scene.size[1]} pixels, {len(np.unique(found[found > 0]))} classes"
            print(f"{path} -> {target} ({size})", file=sys.stderr)
    return written


def _targets(inputs: Sequence[Path], output: Path) -> list[Path]:
    into_folder = len(inputs) > 1 or output.is_dir() or not output.suffix
    if not into_folder:
        if output.suffix.lower() not in maps.SUFFIXES:
            raise UsageError(f"output {output}; a map ends in {', '.join(maps.SUFFIXES)}")
        targets = [output]
    else:
        targets = [output / f"{path.stem}-map.png" for path in inputs]
    if len(set(targets)) < len(targets):
        raise UsageError("two inputs have the same name and would be written to the same file")
    for path, target in zip(inputs, targets, strict=True):
        if target.exists() and target.samefile(path):
            raise UsageError(f"output {target} is the input itself; choose another name")
    return targets


def _as_published(config: SpectralConfig, network: LoLASpecViT | SpectralCNN) -> SpectralConfig:
    features = replace(config.features, fit="all", method="pca", whiten=True, scaled=False)
    return replace(config, network=network.config, features=features, trained="all")
