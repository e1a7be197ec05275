"""Where volumes come from: a user's folders and lists, or generated phantoms; prepared once and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fovea.data import volumes
from fovea.data.synthetic.phantoms import phantom
from fovea.data.volumes import Volume
from fovea.errors import UserError
from fovea.tasks.segmentation.coding import Coded, coded
from fovea.tasks.segmentation.config import VolumesConfig
from fovea.tasks.segmentation.preparation import bounded, example, normalised

Read = Callable[[], Volume]


@dataclass
class Source:
    """Volumes to learn from and volumes held out, each read when it is asked for.

    Attributes:
        name: of the data, for titles.
        coding: what the labels mean.
        training, held_out: functions that read a case.
    """

    name: str
    coding: Coded
    training: Sequence[Read]
    held_out: Sequence[Read]
    _kept: dict[int, tuple[NDArray[np.float32], NDArray[np.uint8]]] = field(default_factory=dict)
    _bytes: int = 0

    def volumes(self) -> Iterator[Volume]:
        """Those held out, one after the other."""
        for read in self.held_out:
            yield read()

    def example(self, config: VolumesConfig, step: int, position: int) -> dict[str, Tensor]:
        """The training crop at a place of a step's batch; depends on nothing but these numbers and the seed."""
        draw = np.random.default_rng((config.seed, step, position))
        image, target = self._prepared(config, int(draw.integers(len(self.training))))
        return example(image, target, config.data, draw)

    def _prepared(self, config: VolumesConfig, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """A training volume, normalised and cut to what is not zero; kept while there is room."""
        if index in self._kept:
            return self._kept[index]
        volume = self.training[index]()
        if volume.labels is None:
            raise UserError(f"{volume.name} has no labels to learn from")
        image = normalised(volume.image) if config.data.normalise == "volume" else volume.image
        found = bounded(image, self.coding.target(volume.labels, volume.name), config.data.roi)
        size = sum(array.nbytes for array in found)
        if self._bytes + size <= config.data.cache * 2**30:
            found = (found[0].copy(), found[1].copy())
            self._kept[index], self._bytes = found, self._bytes + size
        return found


def generated(config: VolumesConfig) -> Source:
    """Phantoms; training and test never share one, whatever their number."""
    data = config.data

    def read(kind: int, index: int) -> Read:
        def volume() -> Volume:
            image, labels = phantom(data.size, (20222, kind, index))
            return Volume(f"phantom {index + 1}", image, labels, np.eye(4))

        return volume

    if data.coding != "brats" or config.network.in_channels != 4:
        raise UserError(
            "generated volumes have four modalities and labels in data.coding=brats; "
            f"this configuration has {config.network.in_channels} and {data.coding}: give --data"
        )
    return Source(
        "phantoms",
        coded("brats", 3),
        [read(0, index) for index in range(data.train_cases)],
        [read(1, index) for index in range(data.test_cases)],
    )


def folder(config: VolumesConfig, path: Path, *, training: bool = True) -> Source:
    """The cases of a user's data: those of ``data.fold`` are held out, or the last ``data.held_out`` by their order.

    Raises:
        UserError: no cases, none left to learn from, or of another number of modalities than the network.
    """
    found, names = volumes.cases(path, config.data.modalities)
    with_labels = [case for case in found if case.label is not None]
    if not with_labels:
        raise UserError(f"{path}: none of {len(found)} cases has labels")
    if any(case.fold is not None for case in with_labels):
        held = [case for case in with_labels if case.fold == config.data.fold]
        if not held:
            folds = sorted({case.fold for case in with_labels if case.fold is not None})
            raise UserError(f"data.fold={config.data.fold}; {path} has folds {', '.join(map(str, folds))}")
        rest = [case for case in with_labels if case.fold != config.data.fold]
    else:
        count = min(config.data.held_out, len(with_labels))
        rest, held = with_labels[:-count], with_labels[-count:]
    if training and not rest:
        raise UserError(
            f"{path}: all {len(with_labels)} cases are held out (data.held_out); none is left to learn from"
        )
    channels = config.network.in_channels

    def reader(case: volumes.Case) -> Read:
        def volume() -> Volume:
            return checked(volumes.read(case), channels)

        return volume

    coding = coded(config.data.coding, config.network.out_channels, names)
    return Source(path.stem, coding, [reader(case) for case in rest], [reader(case) for case in held])


def checked(volume: Volume, channels: int) -> Volume:
    """The volume, if it has the network's number of modalities."""
    if len(volume.image) != channels:
        raise UserError(f"{volume.name} has {len(volume.image)} modalities; the network reads {channels}")
    return volume
