"""Where slices come from: the user's folder, or generated ones; to train on and to measure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fovea.data import scans, slice_folders
from fovea.data.slice_folders import Case
from fovea.data.synthetic import slices as synthetic
from fovea.errors import UserError
from fovea.tasks.fit import Batch
from fovea.tasks.progress import bar
from fovea.tasks.slices import preparation
from fovea.tasks.slices.config import Data, SlicesConfig

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
Pair = tuple[Floats, Labels]

HELD_OUT = 2**40
"""Seeds of generated slices that no training draws."""
KEPT = 2 * 2**30
"""Bytes of read cases that stay in memory."""
THOROUGH = 2**30
"""Data sets of no more bytes are read whole before a training begins, of larger ones the labels alone."""


@dataclass(frozen=True)
class Scan:
    """A case to measure on: its image in [0, 1] and its labels, ``[slices, H, W]``."""

    name: str
    image: Floats
    truth: Labels


@dataclass(frozen=True)
class Source:
    """Slices to train on and cases to measure on.

    Attributes:
        name: for titles.
        classes: their names, the background first.
        data: the preparation, with nothing left to be found out.
        training: pairs of an image in [0, 1] and its labels, ``[H, W]``.
        foreground: of these the ones with something to segment; empty where that is not known.
        lits: whether the published code has a distance of its own for this data set, which is measured too.
    """

    name: str
    classes: tuple[str, ...]
    data: Data
    training: Sequence[Pair]
    foreground: Sequence[int]
    _held_out: Sequence[Case] | int
    lits: bool = False

    def __len__(self) -> int:
        count = self._held_out if isinstance(self._held_out, int) else len(self._held_out)
        return min(count, self.data.cases_held_out or count)

    def held_out(self) -> Iterator[Scan]:
        """The cases to measure on, one at a time."""
        for index in range(len(self)):
            if isinstance(self._held_out, int):
                image, labels = synthetic.micro_tumours(self.data.size, (HELD_OUT, index))
                yield Scan(f"slice {index}", image[None], labels[None])
            else:
                yield read(self._held_out[index], self.data, len(self.classes))


def generated(config: SlicesConfig) -> Source:
    """Generated slices with very small tumours."""
    if config.num_classes != len(synthetic.CLASSES):
        raise UserError(
            f"network.num_classes={config.num_classes}; generated slices have {len(synthetic.CLASSES)}: "
            + ", ".join(synthetic.CLASSES)
        )
    data = replace(config.data, intensity="unit")
    return Source("generated slices", synthetic.CLASSES, data, _Generated(config), (), data.test_slices)


def folder(config: SlicesConfig, path: Path, *, training: bool = True, quiet: bool = True) -> Source:
    """The slices of a user's folder; for ``training`` everything is looked at once, so that no run dies of a bad file.

    Raises:
        UserError: see :func:`fovea.data.slice_folders.cases` and :mod:`fovea.data.scans`; also when an image and its
            labels have different sizes, and when there is nothing to train on.
    """
    found = slice_folders.cases(path)
    data = preparation.resolved(config.data, found.kind, found.modality)
    count, lits = config.num_classes, found.kind.startswith("lits")
    named = found.names if len(found.names) == count else ("background", *(f"class {c}" for c in range(1, count)))
    if not training:
        return Source(path.name, named, data, (), (), found.held_out or found.training, lits)
    if not found.training:
        raise UserError(f"{path} has no cases to train on, only {len(found.held_out)} to measure on")
    slices = _Read(found.training, data, count, quiet)
    held_out = found.held_out or found.training[-1:]
    return Source(path.name, named, data, slices, slices.foreground, held_out, lits)


def read(case: Case, data: Data, classes: int) -> Scan:
    """One case, prepared; raises ``UserError`` when its image and labels do not fit each other."""
    image = scans.image(case.image, axis=data.axis)
    truth = scans.labels(case.label, classes, axis=data.axis, codes=case.codes)
    if image.shape != truth.shape:
        given, labelled = (" x ".join(map(str, array.shape)) for array in (image, truth))
        raise UserError(f"{case.image} is {given} (slices first) and its labels {case.label} are {labelled}")
    if data.intensity == "unit" and (float(image.min()) < -0.5 or float(image.max()) > 1.5):
        span = f"{image.min():g} to {image.max():g}"
        raise UserError(
            f"{case.image} holds values from {span}, where [0, 1] is expected; choose data.intensity=window with "
            "data.low and data.high, or data.intensity=percentiles"
        )
    return Scan(case.name, preparation.scaled(image, data), truth)


class _Generated(Sequence[Pair]):
    """Slices by number, ``train_slices`` of them, or more than any training asks for."""

    def __init__(self, config: SlicesConfig) -> None:
        self.size, self.seed = config.data.size, config.seed
        self.number = config.data.train_slices or 2**31

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        return synthetic.micro_tumours(self.size, (self.seed, index))


class _Read(Sequence[Pair]):
    """The slices of all cases in a row; the last cases that were read stay in memory."""

    def __init__(self, cases: Sequence[Case], data: Data, classes: int, quiet: bool) -> None:
        self.cases, self.data, self.classes = cases, data, classes
        self.kept: OrderedDict[int, Scan] = OrderedDict()
        self.places: list[tuple[int, int]] = []
        self.foreground: list[int] = []
        thorough = sum(case.image.stat().st_size for case in cases) <= THOROUGH
        with bar("looking at the data", len(cases), quiet=quiet) as advance:
            for index, case in enumerate(cases):
                if thorough:
                    truth = self._scan(index).truth
                else:
                    truth = scans.labels(case.label, classes, axis=data.axis, codes=case.codes)
                    if (given := scans.depth(case.image, axis=data.axis)) != len(truth):
                        raise UserError(f"{case.image} has {given} slices and its labels {case.label} {len(truth)}")
                for z, labels in enumerate(truth):
                    if ((labels > 0) & (labels != 255)).any():
                        self.foreground.append(len(self.places))
                    self.places.append((index, z))
                advance()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        case, z = self.places[index]
        scan = self._scan(case)
        return scan.image[z], scan.truth[z]

    def _scan(self, case: int) -> Scan:
        if case not in self.kept:
            self.kept[case] = read(self.cases[case], self.data, self.classes)
            while len(self.kept) > 1 and sum(s.image.nbytes + s.truth.nbytes for s in self.kept.values()) > KEPT:
                self.kept.popitem(last=False)
        self.kept.move_to_end(case)
        return self.kept[case]


class Examples:
    """Training examples by ``(step, position)``: a slice, augmented and fitted; pure in the two and the seed.

    Where the training counts in epochs, each epoch is a permutation of the slices; else every slice is drawn anew.
    """

    def __init__(self, source: Source, config: SlicesConfig) -> None:
        self.source, self.data, self.seed = source, source.data, config.seed
        self.optimisation = config.optimisation
        self._epoch: tuple[int, NDArray[np.intp]] | None = None

    def __call__(self, step: int, position: int) -> Batch:
        draw = np.random.default_rng((self.seed, step, position))
        image, labels = self.source.training[self._index(step, position, draw)]
        if self.data.augment:
            image, labels = preparation.augmented(image, labels, draw)
        image, labels = preparation.fitted(image, labels, self.data, draw)
        return {"image": preparation.as_input(image), "labels": torch.from_numpy(labels.astype(np.int64))}

    def _index(self, step: int, position: int, draw: np.random.Generator) -> int:
        foreground, batches = self.source.foreground, self.optimisation.batches
        if foreground and draw.random() < self.data.foreground:
            return foreground[int(draw.integers(len(foreground)))]
        if not batches:
            return int(draw.integers(len(self.source.training)))
        epoch, place = divmod(step - 1, batches)
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng((self.seed, HELD_OUT, epoch)).permutation(len(self.source.training))
            self._epoch = (epoch, order)
        order = self._epoch[1]
        return int(order[(place * self.optimisation.batch + position) % len(order)])
