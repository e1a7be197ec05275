"""Which labelled pixels are learned from and which are tested: at random, or far from each other.

Neighbouring pixels look alike and their patches overlap. A random split tests a network on patches that it has mostly
seen; ``Split.leakage`` measures by how much. A disjoint split tests it elsewhere in the scene.

Pixels are given as places in the flattened scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fovea.errors import MissingExtra, UserError

Places = NDArray[np.int64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Leakage:
    """What tested pixels share with those learned from, as shares (0 to 1) of the tested pixels.

    Attributes:
        pixel: their patch holds a pixel that is learned from.
        patch: their patch overlaps the patch of one.
        area: share of a tested pixel's patch that lies in patches learned from, on average.
    """

    pixel: float
    patch: float
    area: float


@dataclass(frozen=True, eq=False)
class Split:
    """Pixels to learn from, to validate on (taken from the former), and to test; all apart."""

    train: Places
    validation: Places
    test: Places
    size: tuple[int, int]

    @property
    def known(self) -> Places:
        """All pixels whose labels may be used in training: ``train`` and ``validation``."""
        return np.sort(np.concatenate([self.train, self.validation]))

    def leakage(self, patch: int) -> Leakage:
        """How much of what is tested was seen, with patches of ``patch`` pixels a side."""
        seen = _marked(self.known, self.size)
        if not len(self.test) or not len(self.known):
            return Leakage(0.0, 0.0, 0.0)
        reach = _covered(seen, patch)
        holds, overlaps = (within.ravel()[self.test].mean() for within in (reach, _covered(reach, patch)))
        return Leakage(float(holds), float(overlaps), float(_mean(reach, patch).ravel()[self.test].mean()))


def random_split(labels: Labels, share: float, *, validation: float, seed: int) -> Split:
    """From every class ``share`` of its pixels, at least one, to learn from; all others are tested.

    Args:
        labels: ``[rows, columns]``, 0 for unlabelled.
        share: of the labelled pixels, 0 to 1.
        validation: share of the pixels to learn from that is held back.

    Raises:
        UserError: a class has one pixel, which cannot be learned and tested.
    """
    generator = np.random.default_rng([seed, 0])
    known = []
    for number, places in _classes(labels):
        if len(places) < 2:
            raise UserError(
                f"class {number} has {len(places)} labelled pixel; it needs 2, one to learn and one to test"
            )
        count = min(max(1, round(share * len(places))), len(places) - 1)
        known.append(generator.permutation(places)[:count])
    taken = np.concatenate(known)
    test = np.setdiff1d(np.flatnonzero(labels), taken)
    return _held_back(labels, taken, test, validation, seed)


def disjoint_split(
    labels: Labels, share: float, *, patch: int, block: int, area: float, validation: float, seed: int
) -> Split:
    """Learn in some square blocks of the scene and test in the others.

    Blocks are drawn until they hold every class and ``area`` of the labelled pixels; inside of them, from every class
    ``share`` of its pixels *in the scene* (at least one, at most what is there) are learned from. Pixels outside whose
    patch reaches into such a block are left out, so that no tested patch holds a pixel learned from.

    Args:
        patch: side of the patches.
        block: side of the blocks.

    Raises:
        UserError: the scene is one block, or nothing is left to test.
    """
    rows, columns = labels.shape
    blocks = (np.arange(rows) // block)[:, None] * -(-columns // block) + (np.arange(columns) // block)[None]
    present = np.unique(blocks[labels > 0])
    if len(present) < 2:
        raise UserError(f"split.block={block}; the labelled pixels lie in {len(present)} such block, and 2 are needed")
    chosen = _chosen(labels, blocks, present, area, np.random.default_rng([seed, 1]))
    inside = np.isin(blocks, chosen)
    generator = np.random.default_rng([seed, 2])
    known = []
    for _, places in _classes(labels):
        there = places[inside.ravel()[places]]
        known.append(generator.permutation(there)[: max(1, round(share * len(places)))])
    test = np.flatnonzero((labels > 0) & ~_covered(inside, patch))
    if not len(test):
        raise UserError(
            f"split.block={block}, split.area={area}: no pixel is left to test; take smaller blocks or less area"
        )
    return _held_back(labels, np.concatenate(known), test, validation, seed)


def _chosen(labels: Labels, blocks: Labels, present: Places, area: float, generator: np.random.Generator) -> Places:
    """Blocks to learn in: first one for each class not yet seen, rare classes first, then any until it is enough.

    A class is only learned in a block if another block has it too, where there is a choice.
    """
    counts = np.stack([np.bincount(labels[blocks == block], minlength=labels.max() + 1)[1:] for block in present])
    order = generator.permutation(len(present))
    taken: list[int] = []
    for number in np.argsort((counts > 0).sum(0), kind="stable"):
        if any(counts[block, number] for block in taken):
            continue
        with_class = [block for block in order if counts[block, number]]
        if not with_class:
            continue
        spare = [block for block in with_class if not _exhausts(counts, [*taken, block])]
        taken.append((spare or with_class)[0])
    total = counts.sum()
    for block in order:
        if counts[taken].sum() >= area * total or len(taken) == len(present) - 1:
            break
        if block not in taken and not _exhausts(counts, [*taken, block]):
            taken.append(block)
    return present[taken]


def _exhausts(counts: Labels, taken: list[int]) -> bool:
    """Whether some class would be left nowhere else."""
    rest = counts.sum(0) - counts[taken].sum(0)
    return bool(((rest == 0) & (counts[taken].sum(0) > 0)).any())


def _held_back(labels: Labels, known: Places, test: Places, validation: float, seed: int) -> Split:
    """Take the validation pixels from the known ones, class by class; a class's last pixel is always learned from."""
    generator = np.random.default_rng([seed, 3])
    flat, held = labels.ravel(), []
    for number in np.unique(flat[known]):
        places = np.sort(known[flat[known] == number])
        count = min(round(validation * len(places)), len(places) - 1)
        held.append(generator.permutation(places)[:count])
    back = np.sort(np.concatenate(held)) if held else np.empty(0, np.int64)
    return Split(np.setdiff1d(known, back), back, np.sort(test), (labels.shape[0], labels.shape[1]))


def _classes(labels: Labels) -> list[tuple[int, Places]]:
    return [(number, np.flatnonzero(labels == number)) for number in range(1, int(labels.max()) + 1)]


def _marked(places: Places, size: tuple[int, int]) -> NDArray[np.bool_]:
    marked = np.zeros(size[0] * size[1], np.bool_)
    marked[places] = True
    return marked.reshape(size)


def _covered(marked: NDArray[np.bool_], patch: int) -> NDArray[np.bool_]:
    """The pixels that lie in the patch of a marked one."""
    filters = _filters()
    return filters.maximum_filter(marked.astype(np.uint8), 2 * (patch // 2) + 1, mode="constant").astype(np.bool_)


def _mean(marked: NDArray[np.bool_], patch: int) -> NDArray[np.float64]:
    """The marked share of each pixel's patch, as far as it lies in the scene."""
    side, filters = 2 * (patch // 2) + 1, _filters()
    inside = filters.uniform_filter(np.ones(marked.shape), side, mode="constant")
    return filters.uniform_filter(marked.astype(np.float64), side, mode="constant") / inside


def _filters():
    try:
        from scipy import ndimage
    except ImportError as error:
        raise MissingExtra("hyperspectral scenes", "scipy", "spectral") from error
    return ndimage
