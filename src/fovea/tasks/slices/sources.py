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
from fovea.data.volumes import AFFINE_TOLERANCE
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
VALIDATION = 2**20
"""The first of these that is for validation; those before are held out."""
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
    _held_out: Sequence[Case] | range
    _kept_back: Sequence[Case] | range = ()
    lits: bool = False

    def __len__(self) -> int:
        return min(len(self._held_out), self.data.cases_held_out or len(self._held_out))

    @property
    def validation(self) -> int:
        """How many training cases are kept back to validate on."""
        return len(self._kept_back)

    def held_out(self, count: int | None = None) -> Iterator[Scan]:
        """The cases to measure on, one at a time; the first ``count`` of them."""
        return self._scans(self._held_out[: len(self) if count is None else min(count, len(self))])

    def kept_back(self) -> Iterator[Scan]:
        """The training cases to validate on, one at a time; networks do not learn from them."""
        return self._scans(self._kept_back)

    def _scans(self, cases: Sequence[Case] | range) -> Iterator[Scan]:
        for case in cases:
            if isinstance(case, int):
                image, labels = synthetic.micro_tumours(self.data.size, (HELD_OUT, case))
                yield Scan(f"slice {case}", image[None], labels[None])
            else:
                yield read(case, self.data, len(self.classes))


def generated(config: SlicesConfig) -> Source:
    """Generated slices with very small tumours."""
    if config.num_classes != len(synthetic.CLASSES):
        raise UserError(
            f"network.num_classes={config.num_classes}; generated slices have {len(synthetic.CLASSES)}: "
            + ", ".join(synthetic.CLASSES)
        )
    data = replace(config.data, intensity="unit")
    held_out, kept_back = range(data.test_slices), range(VALIDATION, VALIDATION + data.cases_validated)
    return Source("generated slices", synthetic.CLASSES, data, _Generated(config), (), held_out, kept_back)


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
        return Source(path.name, named, data, (), (), found.held_out or found.training, lits=lits)
    if not found.training:
        raise UserError(f"{path} has no cases to train on, only {len(found.held_out)} to measure on")
    learned, kept_back = _parted(found.training, data.cases_validated, "data.cases_validated")
    learned, held_out = (learned, found.held_out) if found.held_out else _parted(learned, 1, "cases held out")
    slices = _Read(learned, data, count, quiet)
    _look_at(held_out, data, count, quiet)
    if kept_back and not _look_at(kept_back, data, count, quiet):
        raise UserError(f"data.cases_validated={data.cases_validated}: {kept_back[-1].image} has nothing to segment")
    return Source(path.name, named, data, slices, slices.foreground, held_out, kept_back, lits)


def read(case: Case, data: Data, classes: int) -> Scan:
    """One case, prepared; raises ``UserError`` when its image and labels do not fit each other."""
    image = scans.image(case.image, axis=data.axis)
    truth = scans.labels(case.label, classes, axis=data.axis, codes=case.codes)
    if image.shape != truth.shape:
        given, labelled = (" x ".join(map(str, array.shape)) for array in (image, truth))
        raise UserError(f"{case.image} is {given} (slices first) and its labels {case.label} are {labelled}")
    if data.same_affine:
        _check_place(case)
    if data.intensity == "unit" and (float(image.min()) < -0.5 or float(image.max()) > 1.5):
        span = f"{image.min():g} to {image.max():g}"
        raise UserError(
            f"{case.image} holds values from {span}, where [0, 1] is expected; choose data.intensity=window with "
            "data.low and data.high, or data.intensity=percentiles"
        )
    return Scan(case.name, preparation.scaled(image, data), truth)


def _parted(cases: Sequence[Case], count: int, name: str) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Cases to learn from and the last ``count`` to measure on, or more, so that no patient is in both parts; ``name``
    is what the count is called."""
    cut = max(0, len(cases) - count)
    while count and cut and _patient(cases[cut - 1]) == _patient(cases[cut]):
        cut -= 1
    if not cut:
        raise UserError(f"{name}={count} leaves nothing to learn from of {len(cases)} training cases")
    return tuple(cases[:cut]), tuple(cases[cut:])


def _patient(case: Case) -> str:
    """What TransUNet's names of slices (``case0005_slice012``) have in common; names of volumes are all different."""
    return case.name.partition("_slice")[0]


def _look_at(cases: Sequence[Case], data: Data, classes: int, quiet: bool) -> bool:
    """Whether there is something to segment in cases to measure on; ``UserError`` for one that cannot be measured."""
    thorough, found = _is_small(cases), False
    with bar("looking at the data", len(cases), quiet=quiet) as advance:
        for case in cases:
            truth = read(case, data, classes).truth if thorough else _labels(case, data, classes)
            found = found or bool(((truth > 0) & (truth != 255)).any())
            advance()
    return found


def _is_small(cases: Sequence[Case]) -> bool:
    return sum(case.image.stat().st_size for case in cases) <= THOROUGH


def _labels(case: Case, data: Data, classes: int) -> Labels:
    """The labels alone, held against the header of the image."""
    truth = scans.labels(case.label, classes, axis=data.axis, codes=case.codes)
    if (given := scans.depth(case.image, axis=data.axis)) != len(truth):
        raise UserError(f"{case.image} has {given} slices and its labels {case.label} {len(truth)}")
    if data.same_affine:
        _check_place(case)
    return truth


def _check_place(case: Case) -> None:
    """Raise ``UserError`` when image and labels both say where they lie and it is not the same place."""
    affines = scans.affine(case.image), scans.affine(case.label)
    if affines[0] is not None and affines[1] is not None:
        far = float(np.abs(affines[0] - affines[1]).max())
        if not far <= AFFINE_TOLERANCE:
            raise UserError(
                f"the affines of {case.image} and its labels {case.label} differ by {far:g}; they must lie at the same "
                "place (data.same_affine=false pairs their voxels as they come)"
            )


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
        thorough = _is_small(cases)
        with bar("looking at the data", len(cases), quiet=quiet) as advance:
            for index, case in enumerate(cases):
                truth = self._scan(index).truth if thorough else _labels(case, data, classes)
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
