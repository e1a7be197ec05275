"""Reach: what a query sees through several layers, and what a part of the grid needs from its neighbours.

Layers are patterns, the last one nearest to the output; a pattern by heads lets through what any head sees, and
residual connections keep what was there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import cycle, islice

import numpy as np

from fovea.patterns.blocks import BlockPattern, BlockTable
from fovea.patterns.compose import PerHead, Union
from fovea.patterns.pattern import Grid, GridPattern, Pattern, as_grid
from fovea.patterns.spans import BoolArray, IntArray, Spans

Layers = Pattern | Sequence[Pattern]


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """What one query, or a set of queries, sees through ``0, 1, ..., depth`` layers.

    Attributes:
        depths: ``[*grid]`` integers: the number of layers after which a token is first seen; 0 the queries
            themselves, -1 never.
        layers: the number of layers looked through.
    """

    depths: IntArray
    layers: int

    def seen(self, layers: int | None = None) -> BoolArray:
        """``[*grid]``: whether a token is seen through at most so many layers (all of them, if not given)."""
        return (self.depths >= 0) & (self.depths <= (self.layers if layers is None else layers))

    @property
    def counts(self) -> IntArray:
        """``[layers]``: tokens seen through at most 1, 2, ... layers."""
        found = np.bincount(self.depths[self.depths >= 0].ravel(), minlength=self.layers + 1)
        return np.cumsum(found)[1 : self.layers + 1].astype(np.int64)

    @property
    def complete_after(self) -> int | None:
        """The number of layers after which the whole grid is seen; ``None`` if it is not."""
        return None if (self.depths < 0).any() else int(self.depths.max(initial=0))

    def box(self, layers: int | None = None) -> tuple[tuple[int, int], ...]:
        """The smallest box that holds what is seen: ``(first, last)`` of each axis, both included."""
        where = np.nonzero(self.seen(layers))
        return tuple((int(axis.min()), int(axis.max())) for axis in where)


def receptive_field(
    layers: Layers, grid: int | Grid, query: int | tuple[int, ...] | BoolArray | None = None, depth: int | None = None
) -> ReceptiveField:
    """Follow a query back through the layers of a network, exactly, holes included.

    Args:
        layers: one pattern, or the pattern of each layer from the first to the last; repeated in that order from the
            last layer down where ``depth`` is larger.
        grid: of queries and keys; all layers share it.
        query: its coordinates; the last token if not given; or a boolean grid of several.
        depth: number of layers; as many as patterns are given, if not given.

    Work is linear in the number of tokens for each layer and axis: windows are unions of ranges along one axis after
    the other.

    >>> from fovea.patterns import SlidingWindow
    >>> receptive_field(SlidingWindow(2), 16, query=15, depth=3).counts
    array([3, 5, 7])
    """
    grid = as_grid(grid)
    stack = [layers] if isinstance(layers, Pattern) else list(layers)
    if not stack:
        raise ValueError("layers is empty; give at least one pattern")
    depth = len(stack) if depth is None else depth
    seen = _marked(grid, query)
    depths = np.where(seen, 0, -1).astype(np.int64)
    for layer, pattern in enumerate(islice(cycle(reversed(stack)), depth), start=1):
        pattern.check(grid, grid)
        new = _step(pattern, seen) & ~seen
        depths[new] = layer
        seen = seen | new
    return ReceptiveField(depths, depth)


def _marked(grid: Grid, query: int | tuple[int, ...] | BoolArray | None) -> BoolArray:
    if isinstance(query, np.ndarray):
        if query.shape != grid or query.dtype != np.bool_:
            raise ValueError(f"query is {query.dtype} {query.shape}; a set of queries must be a boolean grid {grid}")
        return query
    if query is None:
        query = tuple(n - 1 for n in grid)
    query = (query,) if isinstance(query, int | np.integer) else tuple(query)
    if len(query) != len(grid) or any(not 0 <= q < n for q, n in zip(query, grid, strict=True)):
        raise ValueError(f"query={query}; it must be the coordinates of a token of the grid {grid}")
    marked = np.zeros(grid, np.bool_)
    marked[query] = True
    return marked


def _step(pattern: Pattern, seen: BoolArray) -> BoolArray:
    """The keys that some marked query sees."""
    if isinstance(pattern, Union | PerHead):
        return reduce(np.logical_or, (_step(part, seen) for part in dict.fromkeys(pattern.parts)))
    if isinstance(pattern, GridPattern):
        for axis, spans in enumerate(pattern.spans(seen.shape)):
            seen = np.moveaxis(_along(spans, np.moveaxis(seen, axis, -1)), -1, axis)
        return seen
    if isinstance(pattern, BlockPattern):
        return _through_blocks(pattern.table(len(seen)), seen)
    raise TypeError(f"{type(pattern).__name__} has no receptive field")


def _along(spans: Spans, seen: BoolArray) -> BoolArray:
    """On the last axis: a key is seen if any query of its inverse span is marked."""
    inverse = spans.inverse()
    out = np.zeros(seen.shape, np.bool_)
    for residue in range(min(inverse.step, spans.keys)):
        first, group = inverse.residue(residue)
        if not group.queries:
            continue
        marked = seen[..., residue :: inverse.step]
        total = np.concatenate([np.zeros((*seen.shape[:-1], 1), np.int64), np.cumsum(marked, -1)], -1)
        out[..., first :: inverse.step] = total[..., group.start + group.counts] > total[..., group.start]
    return out


def _through_blocks(table: BlockTable, seen: BoolArray) -> BoolArray:
    tokens, size = len(seen), table.size
    padded = np.zeros(table.rows * size, np.bool_)
    padded[:tokens] = seen
    last = np.where(padded.reshape(-1, size), np.arange(size), -1).max(-1)
    row = np.repeat(np.arange(table.rows), np.diff(table.indptr))
    chosen = last[row] >= 0
    row, block = row[chosen], table.index[chosen]
    until = np.full(table.rows, -1, np.int64)
    np.maximum.at(until, block, np.where((row == block) & table.causal, last[row], size - 1))
    return (np.arange(size) <= until[:, None]).ravel()[:tokens]


@dataclass(frozen=True)
class ShardHalo:
    """What one shard of an axis must fetch: keys ``before`` its first one and ``after`` its last one."""

    first: int
    last: int
    before: int
    after: int


def shard_halo(layers: Layers, grid: int | Grid, shards: int | Grid) -> tuple[tuple[ShardHalo, ...], ...]:
    """The keys that a device needs beside its own, when each axis of the grid is cut in so many equal shards.

    The shards are ``ceil(n / shards)`` long, the last may be shorter. Through several layers the halo of the first
    layer's input is returned. Where a block pattern or a dilated one skips keys inside the halo, these are counted
    all the same.

    Returns for each axis the :class:`ShardHalo` of each shard.

    >>> from fovea.patterns import Neighborhood
    >>> shard_halo(Neighborhood(5), 16, 2)[0][0]
    ShardHalo(first=0, last=7, before=0, after=2)
    """
    grid = as_grid(grid)
    counts = (shards,) * len(grid) if isinstance(shards, int) else tuple(shards)
    if len(counts) != len(grid) or min(counts) < 1:
        raise ValueError(f"shards={shards}; it must be a number of at least 1 for each axis of the grid {grid}")
    stack = [layers] if isinstance(layers, Pattern) else list(layers)
    axes = []
    for axis, (size, count) in enumerate(zip(grid, counts, strict=True)):
        length = max(1, -(-size // count))
        halos = []
        for first in range(0, size, length):
            last = min(first + length, size) - 1
            low, high = first, last
            for pattern in reversed(stack):
                reach = _reach_of_range(pattern, grid, axis, low, high)
                low, high = min(low, reach[0]), max(high, reach[1])
            halos.append(ShardHalo(first, last, first - low, high - last))
        axes.append(tuple(halos))
    return tuple(axes)


def _reach_of_range(pattern: Pattern, grid: Grid, axis: int, low: int, high: int) -> tuple[int, int]:
    """First and last real key that the queries ``low`` to ``high`` of one axis see."""
    if isinstance(pattern, Union | PerHead):
        pattern.check(grid, grid)
        found = [_reach_of_range(part, grid, axis, low, high) for part in dict.fromkeys(pattern.parts)]
        return min(first for first, _ in found), max(last for _, last in found)
    if isinstance(pattern, BlockPattern):
        table = pattern.table(grid[0])
        blocks = table.index[table.indptr[low // table.size] : table.indptr[high // table.size + 1]]
        if not len(blocks):
            return low, high
        last = high if table.causal else min((int(blocks.max()) + 1) * table.size, table.keys) - 1
        return int(blocks.min()) * table.size, last
    if not isinstance(pattern, GridPattern):
        raise TypeError(f"{type(pattern).__name__} has no halo")
    spans = pattern.spans(grid)[axis]
    rows = np.arange(low, high + 1)[spans.counts[low : high + 1] > 0]
    if not len(rows):
        return low, high
    return max(0, int(spans.start[rows].min())), min(spans.keys - 1, int(spans.last[rows].max()))
