"""Tiles: a grid pattern cut in tiles of queries and tiles of keys, as tiled kernels walk over it.

Per axis and residue class (dilation group) everything is a handful of integers for each query tile: the union box of
its keys, the key tiles to visit, those that need no mask, and which other tiles have the same mask. A tile of several
axes is the product of its axes (GNA, arXiv 2504.16922; spec sections on tile ranges and tile classes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

import numpy as np

from fovea.patterns.pattern import Grid, GridPattern, as_grid, as_grids
from fovea.patterns.spans import BoolArray, IntArray, Spans
from fovea.patterns.states import FULL, PARTIAL, States


@dataclass(frozen=True, eq=False)
class AxisTiles:
    """One axis of one residue class, cut in tiles.

    Key coordinates count the members of the class, from the first zero key where the pattern pads; so do query
    coordinates. Rows of the tables are query tiles. The last tiles may be shorter.

    Attributes:
        spans: the class, of step 1 and without padding.
        query_tile, key_tile: coordinates a tile.
        low, high: the union of the keys seen by the tile's queries lies in ``[low, high)``; equal where it is empty.
        full_low, full_high: every query of the tile sees all of ``[full_low, full_high)``.
    """

    spans: Spans
    query_tile: int
    key_tile: int
    low: IntArray
    high: IntArray
    full_low: IntArray
    full_high: IntArray

    @classmethod
    def cut(cls, spans: Spans, query_tile: int, key_tile: int) -> AxisTiles:
        """Cut the spans of a residue class (see :meth:`Spans.residue`)."""
        if not spans.queries:
            empty = np.empty(0, np.int64)
            return cls(spans, query_tile, key_tile, empty, empty, empty, empty)
        edges = np.arange(0, spans.queries, query_tile)
        start, stop, seen = spans.start, spans.start + spans.counts, spans.counts > 0
        low = np.minimum.reduceat(np.where(seen, start, spans.keys), edges)
        high = np.maximum(low, np.maximum.reduceat(np.where(seen, stop, 0), edges))
        full_low = np.maximum.reduceat(np.where(seen, start, spans.keys), edges)
        full_high = np.maximum(full_low, np.minimum.reduceat(np.where(seen, stop, 0), edges))
        return cls(spans, query_tile, key_tile, low, high, full_low, full_high)

    @property
    def query_tiles(self) -> int:
        return -(-self.spans.queries // self.query_tile)

    @property
    def key_tiles(self) -> int:
        return -(-self.spans.keys // self.key_tile)

    @cached_property
    def first(self) -> IntArray:
        """First key tile to visit."""
        return self.low // self.key_tile

    @cached_property
    def last(self) -> IntArray:
        """One past the last key tile to visit."""
        return np.where(self.high > self.low, -(-self.high // self.key_tile), self.first)

    @cached_property
    def full_first(self) -> IntArray:
        """First of the visited key tiles that every query of the tile sees wholly."""
        return -(-self.full_low // self.key_tile)

    @cached_property
    def full_last(self) -> IntArray:
        """One past the last of them; not above ``full_first`` where there are none. Key tiles that the end of the
        axis cuts are never full."""
        return np.maximum(self.full_first, self.full_high // self.key_tile)

    @property
    def whole(self) -> BoolArray:
        """Whether every query of the tile sees its whole box ``[low, high)``: no mask needed on this axis."""
        return (self.full_low == self.low) & (self.full_high == self.high)

    @cached_property
    def mask_class(self) -> IntArray:
        """Number of the mask of each tile; tiles of one number have the same mask relative to ``low``."""
        rows = np.full((self.query_tiles, self.query_tile, 2), -1, np.int64)
        spans = np.stack([self.spans.start, self.spans.start + self.spans.counts], -1)
        tile = np.arange(self.spans.queries) // self.query_tile
        rows.reshape(-1, 2)[: self.spans.queries] = spans - self.low[tile, None]
        width = np.broadcast_to((self.high - self.low)[:, None], (self.query_tiles, 1))
        table = np.concatenate([width, rows.reshape(self.query_tiles, 2 * self.query_tile)], 1)
        return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)

    def mask(self, tile: int) -> BoolArray:
        """``[queries of the tile, high - low]``."""
        rows = slice(tile * self.query_tile, (tile + 1) * self.query_tile)
        key = np.arange(self.low[tile], self.high[tile])
        start = self.spans.start[rows, None]
        return (key >= start) & (key < start + self.spans.counts[rows, None])


@dataclass(frozen=True, eq=False)
class TileLists:
    """For each query tile the key tiles that need a mask, and those that need none (compressed rows).

    Row ``r``: ``partial[partial_start[r]:partial_start[r + 1]]`` and ``full[full_start[r]:full_start[r + 1]]``,
    ascending.
    """

    partial_start: IntArray
    partial: IntArray
    full_start: IntArray
    full: IntArray

    @classmethod
    def of(cls, states: States) -> TileLists:
        """From a table ``[query tiles, key tiles]`` of states, of any pattern (see ``block_states``)."""
        lists: list[IntArray] = []
        for state in (PARTIAL, FULL):
            row, column = np.nonzero(states == state)
            lists += [np.append(0, np.cumsum(np.bincount(row, minlength=len(states)))), column.astype(np.int64)]
        return cls(*lists)


@dataclass(frozen=True, eq=False)
class TileGroup:
    """The tiles of one dilation group of a grid pattern: the product of its axes. Tiles are numbered in row-major
    order.

    Attributes:
        residues: residue class of each axis.
        first_query: grid coordinate of the group's first query; neighbours are ``step`` apart.
        axes: the tiles of each axis.
    """

    residues: Grid
    first_query: Grid
    axes: tuple[AxisTiles, ...]

    @property
    def query_tiles(self) -> Grid:
        return tuple(axis.query_tiles for axis in self.axes)

    @property
    def key_tiles(self) -> Grid:
        return tuple(axis.key_tiles for axis in self.axes)

    def _table(self, tables: list[IntArray]) -> IntArray:
        return np.stack([t.ravel() for t in np.meshgrid(*tables, indexing="ij")], -1)

    @property
    def boxes(self) -> tuple[IntArray, IntArray]:
        """``low, high``, each ``[query tiles, axes]``: the union box of a query tile's keys, ``high`` excluded."""
        return self._table([axis.low for axis in self.axes]), self._table([axis.high for axis in self.axes])

    @property
    def visits(self) -> tuple[IntArray, IntArray]:
        """``first, last``, each ``[query tiles, axes]``: the box of key tiles that a query tile visits, ``last``
        excluded."""
        return self._table([axis.first for axis in self.axes]), self._table([axis.last for axis in self.axes])

    @property
    def needs_mask(self) -> BoolArray:
        """``[query tiles]``: whether some query of the tile does not see its whole box."""
        whole = self._table([axis.whole.astype(np.int64) for axis in self.axes])
        return np.min(whole, axis=-1) == 0

    @property
    def mask_class(self) -> IntArray:
        """``[query tiles]``: tiles of one number have the same mask relative to their boxes."""
        number = np.zeros(1, np.int64)
        for axis in self.axes:
            classes = axis.mask_class
            number = (number[:, None] * (classes.max(initial=0) + 1) + classes).ravel()
        return np.unique(number, return_inverse=True)[1].reshape(-1)

    def mask(self, tile: int) -> BoolArray:
        """``[queries of the tile, keys of its box]``, both row-major; queries of a tile that the grid cuts are
        fewer."""
        mask = np.ones((1, 1), np.bool_)
        for axis, index in zip(self.axes, np.unravel_index(tile, self.query_tiles), strict=True):
            mask = np.kron(mask, axis.mask(int(index)))
        return mask

    def states(self) -> States:
        """``[query tiles, key tiles]``: 0 not visited, 1 visited with a mask, 2 every query of the tile that is in
        the grid sees every key of the tile."""
        some, every = np.ones((1, 1), np.bool_), np.ones((1, 1), np.bool_)
        for axis in self.axes:
            key = np.arange(axis.key_tiles)
            some = np.kron(some, (key >= axis.first[:, None]) & (key < axis.last[:, None]))
            every = np.kron(every, (key >= axis.full_first[:, None]) & (key < axis.full_last[:, None]))
        return some.astype(np.uint8) + (some & every)

    @property
    def visited(self) -> int:
        """Number of (query tile, key tile) pairs to visit."""
        return prod(int((axis.last - axis.first).sum()) for axis in self.axes)

    @property
    def full(self) -> int:
        """Number of visited pairs of tiles that need no mask."""
        return prod(int((axis.full_last - axis.full_first).sum()) for axis in self.axes)

    @property
    def most_visited(self) -> Grid:
        """The most key tiles that any query tile visits, on each axis."""
        return tuple(int((axis.last - axis.first).max(initial=0)) for axis in self.axes)

    def lists(self) -> TileLists:
        """The key tiles of each query tile; grows with their number alone."""
        first, last = self.visits
        width = last - first
        counts = width.prod(-1)
        row = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        key, full = np.zeros(len(row), np.int64), np.ones(len(row), np.bool_)
        inside: list[IntArray] = []
        for axis in reversed(range(len(self.axes))):
            size = np.maximum(width[row, axis], 1)
            inside.insert(0, first[row, axis] + number % size)
            number = number // size
        ends = [self._table([getattr(a, name) for a in self.axes]) for name in ("full_first", "full_last")]
        for axis, coordinate in enumerate(inside):
            key = key * self.key_tiles[axis] + coordinate
            full &= (coordinate >= ends[0][row, axis]) & (coordinate < ends[1][row, axis])

        def start(chosen: BoolArray) -> IntArray:
            return np.append(0, np.cumsum(np.bincount(row[chosen], minlength=len(counts))))

        return TileLists(start(~full), key[~full], start(full), key[full])


@dataclass(frozen=True, eq=False)
class Tiling:
    """A grid pattern on given grids, cut in tiles of ``query_tile`` and ``key_tile`` coordinates an axis.

    >>> from fovea.patterns import Neighborhood
    >>> (group,) = Tiling(Neighborhood(8, stride=4), 16, None, 4, 4).groups
    >>> group.states()
    array([[2, 2, 0, 0],
           [1, 2, 1, 0],
           [0, 1, 2, 1],
           [0, 0, 2, 2]], dtype=uint8)
    """

    pattern: GridPattern
    query_grid: Grid
    key_grid: Grid
    query_tile: Grid
    key_tile: Grid

    def __init__(
        self,
        pattern: GridPattern,
        query_grid: int | Grid,
        key_grid: int | Grid | None,
        query_tile: int | Grid,
        key_tile: int | Grid,
    ) -> None:
        query_grid, key_grid = as_grids(query_grid, key_grid)
        sizes = {"query_tile": as_grid(query_tile, "query_tile"), "key_tile": as_grid(key_tile, "key_tile")}
        for name, tile in sizes.items():
            if len(tile) != len(query_grid) or min(tile) < 1:
                raise ValueError(f"{name}={tile}; it must have a number of at least 1 for each axis of {query_grid}")
            object.__setattr__(self, name, tile)
        object.__setattr__(self, "pattern", pattern)
        object.__setattr__(self, "query_grid", query_grid)
        object.__setattr__(self, "key_grid", key_grid)

    @cached_property
    def spans(self) -> tuple[Spans, ...]:
        """The spans of each axis, zero keys counted as keys."""
        return tuple(spans.padded() for spans in self.pattern.spans(self.query_grid, self.key_grid))

    @property
    def step(self) -> Grid:
        return tuple(spans.step for spans in self.spans)

    @cached_property
    def axis_classes(self) -> tuple[tuple[tuple[int, int, AxisTiles], ...], ...]:
        """For each axis, its residue classes: ``(residue, first query, tiles)``."""
        axes = []
        for spans, query_tile, key_tile in zip(self.spans, self.query_tile, self.key_tile, strict=True):
            classes = []
            for residue in range(spans.step):
                first, group = spans.residue(residue)
                classes.append((residue, first, AxisTiles.cut(group, query_tile, key_tile)))
            axes.append(tuple(classes))
        return tuple(axes)

    @cached_property
    def groups(self) -> tuple[TileGroup, ...]:
        """The dilation groups, in row-major order of their residues; each is a problem of its own."""
        return tuple(self._groups())

    def _groups(self) -> Iterator[TileGroup]:
        for classes in product(*self.axis_classes):
            residues, first, axes = zip(*classes, strict=True)
            yield TileGroup(residues, first, axes)
