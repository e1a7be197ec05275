"""Orders: how the tokens of a grid are laid out in one sequence, row by row or tile by tile.

Kernels work on blocks of consecutive tokens. What a block is on the grid, a few boxes or one tile, decides how much
of a pattern falls on whole blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from fovea.patterns.pattern import Grid, as_grid
from fovea.patterns.spans import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Pieces:
    """What consecutive blocks of a sequence are on the grid: each the union of a few products of coordinate ranges.

    Attributes:
        low, high: ``[blocks, pieces, axes]``: coordinates ``low, low + step, ..., high``; a piece with ``low > high``
            on an axis is empty.
        step: of each axis.
        whole: ``[blocks]``: whether all of the block's places hold real tokens.
    """

    low: IntArray
    high: IntArray
    step: tuple[int, ...]
    whole: BoolArray

    @property
    def empty(self) -> BoolArray:
        """``[blocks, pieces]``."""
        return np.any(self.low > self.high, axis=-1)


class Order(ABC):
    """A layout of the tokens of ``grid`` in a sequence of ``length`` places."""

    grid: Grid

    @property
    @abstractmethod
    def length(self) -> int:
        """Places in the sequence, those that hold no token included."""

    @abstractmethod
    def coordinates(self, place: Any) -> tuple[Any, ...]:
        """The coordinate on each axis of the token at a place, for an integer or an integer array of any library. Out
        of the grid on some axis where the place holds no token."""

    @abstractmethod
    def pieces(self, block: int) -> Pieces:
        """The blocks of ``block`` consecutive places, the last one perhaps shorter."""


@dataclass(frozen=True)
class RowMajor(Order):
    """Row by row: the last axis runs fastest. Nothing is padded.

    >>> RowMajor((2, 3)).coordinates(4)
    (1, 1)
    """

    grid: Grid

    @property
    def length(self) -> int:
        return prod(self.grid)

    def coordinates(self, place: Any) -> tuple[Any, ...]:
        coordinates = []
        for size in reversed(self.grid[1:]):
            coordinates.append(place % size)
            place = place // size
        return (place, *reversed(coordinates))

    def pieces(self, block: int) -> Pieces:
        first = np.arange(0, self.length, block, dtype=np.int64)
        last = np.minimum(first + block, self.length) - 1
        boxes = _range(first, last, self.grid)
        low, high = (np.stack([np.stack(box[end], -1) for box in boxes], 1) for end in (0, 1))
        order = np.argsort((low > high).any(-1), axis=1, kind="stable")
        used = int((low <= high).all(-1).sum(1).max(initial=1))
        low, high = (np.take_along_axis(ends, order[..., None], 1)[:, :used] for ends in (low, high))
        return Pieces(low, high, (1,) * len(self.grid), last - first + 1 == block)


Box = tuple[list[IntArray], list[IntArray]]


def _full(count: int, shape: Sequence[int]) -> Box:
    return [np.zeros(count, np.int64) for _ in shape], [np.full(count, size - 1, np.int64) for size in shape]


def _behind(leading: tuple[IntArray, IntArray], box: Box) -> Box:
    return [leading[0], *box[0]], [leading[1], *box[1]]


def _from(first: IntArray, shape: Sequence[int]) -> list[Box]:
    """Boxes that hold the places from ``first`` to the end of ``shape``."""
    rest = prod(shape[1:])
    if len(shape) == 1:
        return [([first], [np.full_like(first, shape[0] - 1)])]
    row = first // rest
    inside = [_behind((row, row), box) for box in _from(first % rest, shape[1:])]
    return [*inside, _behind((row + 1, np.full_like(row, shape[0] - 1)), _full(len(first), shape[1:]))]


def _until(last: IntArray, shape: Sequence[int]) -> list[Box]:
    """Boxes that hold the places from the beginning of ``shape`` to ``last``."""
    rest = prod(shape[1:])
    if len(shape) == 1:
        return [([np.zeros_like(last)], [last])]
    row = last // rest
    inside = [_behind((row, row), box) for box in _until(last % rest, shape[1:])]
    return [_behind((np.zeros_like(row), row - 1), _full(len(last), shape[1:])), *inside]


def _range(first: IntArray, last: IntArray, shape: Sequence[int]) -> list[Box]:
    """Disjoint boxes that together hold the places ``first`` to ``last``; some of them empty."""
    if len(shape) == 1:
        return [([first], [last])]
    rest = prod(shape[1:])
    top, bottom = first // rest, last // rest
    same = top == bottom
    never = (np.where(same, 1, top), np.where(same, 0, top))
    boxes = [_behind((top, np.where(same, top, top - 1)), box) for box in _range(first % rest, last % rest, shape[1:])]
    boxes += [_behind(never, box) for box in _from(first % rest, shape[1:])]
    boxes += [_behind((np.where(same, 1, top + 1), np.where(same, 0, bottom - 1)), _full(len(first), shape[1:]))]
    below = (np.where(same, 1, bottom), np.where(same, 0, bottom))
    boxes += [_behind(below, box) for box in _until(last % rest, shape[1:])]
    return boxes


@dataclass(frozen=True)
class Permutation(Order):
    """Tile by tile, each dilation group apart: every tile of ``tile`` tokens becomes contiguous (spec of the token
    permutation: GNA, arXiv 2504.16922).

    Each axis is padded at its end to a multiple of ``tile * dilation`` and read as ``index = (r * tile + o) * dilation
    + g``; the sequence runs over the groups ``g`` of all axes, then the tiles ``r``, then the places ``o`` inside a
    tile, each in row-major order.

    >>> Permutation((2, 3), (2, 2), (1, 1)).index
    array([[ 0,  1,  3,  4,  2, -1,  5, -1]])
    """

    grid: Grid
    tile: Grid
    dilation: Grid

    def __post_init__(self) -> None:
        for name in ("grid", "tile", "dilation"):
            object.__setattr__(self, name, as_grid(getattr(self, name), name))
        if not len(self.grid) == len(self.tile) == len(self.dilation) or min(*self.tile, *self.dilation) < 1:
            raise ValueError(
                f"tile={self.tile} and dilation={self.dilation} must have one number of at least 1 for each axis "
                f"of the grid {self.grid}"
            )

    @property
    def tiles(self) -> Grid:
        """Number of tiles on each axis of one dilation group."""
        return tuple(-(-n // (t * d)) for n, t, d in zip(self.grid, self.tile, self.dilation, strict=True))

    @property
    def groups(self) -> int:
        return prod(self.dilation)

    @property
    def length(self) -> int:
        return self.groups * prod(self.tiles) * prod(self.tile)

    def coordinates(self, place: Any) -> tuple[Any, ...]:
        digits = []
        for size in (*reversed(self.tile), *reversed(self.tiles), *reversed(self.dilation)):
            digits.append(place % size)
            place = place // size
        axes = len(self.grid)
        inside, tile, group = (digits[k * axes : (k + 1) * axes][::-1] for k in range(3))
        return tuple(
            (r * t + o) * d + g for o, r, g, t, d in zip(inside, tile, group, self.tile, self.dilation, strict=True)
        )

    @cached_property
    def index(self) -> IntArray:
        """``[groups, places of a group]``: the row-major token at each place, -1 where there is none."""
        coordinates = self.coordinates(np.arange(self.length, dtype=np.int64))
        token, real = np.zeros(self.length, np.int64), np.ones(self.length, np.bool_)
        for coordinate, size in zip(coordinates, self.grid, strict=True):
            token = token * size + coordinate
            real &= coordinate < size
        index = np.where(real, token, -1).reshape(self.groups, -1)
        index.flags.writeable = False
        return index

    @cached_property
    def inverse(self) -> IntArray:
        """``[tokens]``: the place (group by group, one after the other) of each row-major token."""
        index = self.index.ravel()
        inverse = np.empty(prod(self.grid), np.int64)
        inverse[index[index >= 0]] = np.flatnonzero(index >= 0)
        inverse.flags.writeable = False
        return inverse

    def pieces(self, block: int | None = None) -> Pieces:
        """One piece a tile; blocks other than tiles are refused."""
        if block not in (None, prod(self.tile)):
            raise ValueError(f"block={block}; in an order by tiles of {self.tile} a block is {prod(self.tile)} tokens")
        axes = len(self.grid)
        digits = np.indices((*self.dilation, *self.tiles)).reshape(2 * axes, -1)
        group, tile = digits[:axes].T, digits[axes:].T
        size, step, grid = (np.asarray(v) for v in (self.tile, self.dilation, self.grid))
        low = tile * size * step + group
        end = low + (size - 1) * step
        high = np.minimum(end, group + (grid - 1 - group) // step * step)
        return Pieces(low[:, None], high[:, None], self.dilation, (high == end).all(-1))
