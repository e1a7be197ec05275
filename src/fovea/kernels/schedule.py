"""The calls of the tiled backend: tiles of queries that share one mask, and the keys that each tile sees.

Along each axis (of each residue class, where there is dilation) queries are cut in tiles; the keys of a tile are the
union of its queries' spans, one contiguous box. Tiles whose spans look alike from their box form a class; a class of
the grid is a product of classes of its axes, and becomes one call. So the number of calls and masks depends on the
borders of the grid and not on its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from itertools import product
from math import prod

import numpy as np

from fovea.kernels.problem import Problem
from fovea.patterns import BlockPattern, Blocks, BlockTable, Causal, GridPattern, Pattern, Spans, Union
from fovea.patterns.pattern import Grid
from fovea.patterns.spans import BoolArray, IntArray
from fovea.patterns.states import padded_key_grid

Run = tuple[slice, tuple[slice, ...]]
"""Part of a tile's keys, and where it lies in the padded key grid."""


@dataclass(frozen=True, eq=False)
class Call:
    """Tiles that share one mask, computed together.

    Attributes:
        query: ``[tiles, queries]``, numbers of tokens.
        key: ``[tiles, keys]``, numbers of tokens of the padded key grid.
        runs: for each tile, its keys as boxes of the padded key grid; none where no key belongs to two tiles.
        mask: ``[queries, keys]``; none where every query sees every key.
        bias: ``[queries, keys]``, places in the flattened table of relative biases.
        causal: all queries against all keys, each seeing those up to itself.
    """

    query: IntArray
    key: IntArray
    runs: tuple[tuple[Run, ...], ...] | None = None
    mask: BoolArray | None = None
    bias: IntArray | None = None
    causal: bool = False

    @property
    def pairs(self) -> int:
        if self.causal:
            return self.key.shape[1] * (self.key.shape[1] + 1) // 2
        return self.query.size * self.key.shape[1]


@dataclass(frozen=True, eq=False)
class Schedule:
    """All calls of a problem.

    Attributes:
        calls: the calls.
        key_grid: the padded grid of keys.
        tile: the tile of queries, where it is one box.
        disjoint: whether every query lies in one call only; else results are joined by their log-sum-exp.
    """

    calls: tuple[Call, ...]
    key_grid: Grid
    tile: Grid | None
    disjoint: bool = True

    @property
    def pairs(self) -> int:
        """Pairs computed for one head of one batch entry."""
        return sum(call.pairs for call in self.calls)

    @property
    def gathered(self) -> int:
        """Keys gathered for one batch entry."""
        return sum(call.key.size for call in self.calls)


@dataclass(frozen=True, eq=False)
class _AxisTile:
    """One tile of one residue class of an axis."""

    query: IntArray
    low: int
    key: slice
    start: IntArray
    stop: IntArray
    position: IntArray

    @property
    def width(self) -> int:
        return len(range(self.key.start, self.key.stop, self.key.step))

    def mask(self) -> BoolArray:
        key = np.arange(self.width)
        return (key >= self.start[:, None]) & (key < self.stop[:, None])


@dataclass
class _AxisClass:
    tiles: list[_AxisTile] = field(default_factory=list)

    @property
    def keys(self) -> IntArray:
        return np.stack([np.arange(tile.key.start, tile.key.stop, tile.key.step) for tile in self.tiles])

    @property
    def disjoint(self) -> bool:
        return len(np.unique(self.keys)) == self.keys.size


Edges = tuple[str, int]
"""How an axis is cut: ``("every", n)`` queries a tile, or ``("runs", n)`` runs of queries with equal spans a tile."""


def _edges(spans: Spans, how: Edges) -> IntArray:
    kind, size = how
    if kind == "every":
        return np.arange(0, spans.queries, size)
    changes = (np.diff(spans.start) != 0) | (np.diff(spans.stop) != 0)
    return np.concatenate([[0], 1 + np.flatnonzero(changes)])[::size]


def _residues(spans: Spans) -> Iterator[tuple[int, int, Spans]]:
    """Residue class, first query and spans of each class of a padded axis that has queries."""
    if spans.step == 1:
        yield 0, 0, spans
        return
    for residue in range(spans.step):
        first, members = spans.residue(residue)
        if members.queries:
            yield residue, first, members


def _axis_tiles(spans: Spans, how: Edges) -> Iterator[_AxisTile]:
    spans, step = spans.padded(), spans.step
    for residue, first, members in _residues(spans):
        if not members.queries:
            continue
        edges = np.append(_edges(members, how), members.queries)
        seen = members.counts > 0
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            start, stop = members.start[begin:end], members.stop[begin:end]
            rows = seen[begin:end]
            low = int(start[rows].min()) if rows.any() else 0
            high = int(stop[rows].max()) if rows.any() else 0
            yield _AxisTile(
                query=first + step * np.arange(begin, end),
                low=low,
                key=slice(
                    residue + step * low, residue + step * (high - 1) + 1 if high > low else residue + step * low, step
                ),
                start=np.where(rows, start - low, 0),
                stop=np.where(rows, stop - low, 0),
                position=members.position[begin:end] - low,
            )


def _classes(spans: Spans, how: Edges, bias: bool) -> list[_AxisClass]:
    classes: dict[tuple[bytes, ...], _AxisClass] = {}
    for tile in _axis_tiles(spans, how):
        looks = (tile.start, tile.stop, np.array([tile.width]), *([tile.position] if bias else []))
        classes.setdefault(tuple(table.tobytes() for table in looks), _AxisClass()).tiles.append(tile)
    return list(classes.values())


def _flatten(tables: list[IntArray], grid: Grid) -> IntArray:
    """``[tiles_a, coordinates_a]`` of each axis to ``[tiles, tokens]``, both in row-major order."""

    def join(flat: IntArray, axis: int) -> IntArray:
        table = tables[axis]
        joined = flat[:, None, :, None] * grid[axis] + table[None, :, None, :]
        return joined.reshape(flat.shape[0] * table.shape[0], -1)

    return reduce(join, range(len(tables)), np.zeros((1, 1), np.int64))


def _grid_schedule(problem: Problem, pattern: GridPattern, cuts: tuple[Edges, ...]) -> Schedule:
    query_grid, key_grid = problem.query_grid, padded_key_grid(pattern, problem.query_grid, problem.key_grid)
    axes = pattern.spans(query_grid, problem.key_grid)
    offsets = [
        pattern.offsets(axis, *sizes) for axis, sizes in enumerate(zip(query_grid, problem.key_grid, strict=True))
    ]
    calls = []
    for group in product(*(_classes(spans, how, problem.bias) for spans, how in zip(axes, cuts, strict=True))):
        first = [axis.tiles[0] for axis in group]
        if not all(tile.width for tile in first):
            continue
        masks = [tile.mask() for tile in first]
        mask = None if all(mask.all() for mask in masks) else reduce(np.kron, masks)
        bias = None
        if problem.bias:
            places = [
                np.clip(np.arange(tile.width) - tile.position[:, None], low, high)[None] - low
                for tile, (low, high) in zip(first, offsets, strict=True)
            ]
            shape = [high - low + 1 for low, high in offsets]
            bias = reduce(_join_places(shape, places), range(len(places)), np.zeros((1, 1), np.int64))
        runs = None
        if not all(axis.disjoint for axis in group):
            width = prod(tile.width for tile in first)
            runs = tuple(
                ((slice(0, width), tuple(tile.key for tile in tiles)),) for tiles in product(*(a.tiles for a in group))
            )
        query = _flatten([np.stack([tile.query for tile in axis.tiles]) for axis in group], query_grid)
        calls.append(Call(query, _flatten([axis.keys for axis in group], key_grid), runs, mask, bias))
    tile = tuple(max((len(t.query) for t in _axis_tiles(s, how)), default=0) for s, how in zip(axes, cuts, strict=True))
    return Schedule(tuple(calls), key_grid, tile)


def _join_places(shape: list[int], places: list[IntArray]):
    def join(flat: IntArray, axis: int) -> IntArray:
        table = places[axis][0]
        joined = flat[:, None, :, None] * shape[axis] + table[None, :, None, :]
        return joined.reshape(flat.shape[0] * table.shape[0], -1)

    return join


def _block_schedule(table: BlockTable) -> Schedule:
    """Rows of blocks that see equally many keys, cut alike by causality, form a call."""
    groups: dict[tuple[int, int, int], list[tuple[IntArray, IntArray, tuple[Run, ...]]]] = {}
    for row in range(table.rows):
        block = table.first_row + row
        query = np.arange(
            max(block * table.size, table.position), min((block + 1) * table.size, table.position + table.queries)
        )
        seen = table.row(row)
        if not len(seen):
            continue
        runs, pieces, width = [], [], 0
        for run in np.split(seen, 1 + np.flatnonzero(np.diff(seen) != 1)):
            low, high = int(run[0]) * table.size, min((int(run[-1]) + 1) * table.size, table.keys)
            runs.append((slice(width, width + high - low), (slice(low, high, 1),)))
            pieces.append(np.arange(low, high))
            width += high - low
        own = int(query[0]) - int(pieces[-1][-1]) if table.causal and seen[-1] == block else 1
        looks = (len(query), width, own)
        groups.setdefault(looks, []).append((query - table.position, np.concatenate(pieces), tuple(runs)))
    calls = []
    for (queries, width, own), tiles in groups.items():
        mask = None
        if own < 1:
            mask = np.arange(width) <= width - 1 + own + np.arange(queries)[:, None]
            mask = None if mask.all() else mask
        query, key, runs = (np.stack([tile[0] for tile in tiles]), np.stack([tile[1] for tile in tiles]), None)
        if len(np.unique(key)) < key.size:
            runs = tuple(tile[2] for tile in tiles)
        calls.append(Call(query, key, runs, mask))
    return Schedule(tuple(calls), (table.keys,), (table.size,))


def _sees(pattern: Pattern, problem: Problem, query: IntArray, key: IntArray) -> BoolArray:
    """``[tiles, queries, keys]``: whether tokens see each other, for token numbers of the grids."""
    if isinstance(pattern, Blocks):
        position = problem.key_grid[0] - problem.query_grid[0]
        return pattern.sees(query[:, :, None] + position, key[:, None, :])
    if isinstance(pattern, BlockPattern):
        return pattern.table(problem.queries, problem.keys).sees(query[:, :, None], key[:, None, :])
    assert isinstance(pattern, GridPattern)
    key_grid = padded_key_grid(pattern, problem.query_grid, problem.key_grid)
    at, to = np.unravel_index(query, problem.query_grid), np.unravel_index(key, key_grid)
    seen = np.ones((*query.shape, key.shape[1]), np.bool_)
    for spans, i, j in zip(pattern.spans(problem.query_grid, problem.key_grid), at, to, strict=True):
        spans = spans.padded()
        start, stop = spans.start[i][:, :, None], spans.stop[i][:, :, None]
        j = j[:, None, :]
        seen &= (j >= start) & (j < stop) & ((j - start) % spans.step == 0)
    return seen


def _without(call: Call, earlier: list[Pattern], problem: Problem) -> Iterator[Call]:
    """The call less the pairs that earlier patterns see; tiles are grouped anew by what is left of their mask."""
    groups: dict[bytes, tuple[BoolArray, list[int]]] = {}
    step = max(1, (1 << 22) // max(1, call.query.shape[1] * call.key.shape[1]))
    for begin in range(0, len(call.query), step):
        query, key = call.query[begin : begin + step], call.key[begin : begin + step]
        left = ~reduce(np.logical_or, (_sees(pattern, problem, query, key) for pattern in earlier))
        if call.mask is not None:
            left &= call.mask
        for tile, mask in enumerate(left):
            if mask.any():
                groups.setdefault(np.packbits(mask).tobytes(), (mask, []))[1].append(begin + tile)
    for mask, tiles in groups.values():
        runs = None if call.runs is None else tuple(call.runs[tile] for tile in tiles)
        yield Call(call.query[tiles], call.key[tiles], runs, None if mask.all() else mask)


def _flat_parts(pattern: Union) -> list[Pattern]:
    return [leaf for part in pattern.parts for leaf in (_flat_parts(part) if isinstance(part, Union) else [part])]


def is_plain_causal(problem: Problem) -> bool:
    """Whether fused attention's own causal mode computes the problem; with a scale of 0 or less it gives NaN."""
    return (
        problem.pattern == Causal()
        and problem.scale > 0
        and len(problem.query_grid) == 1
        and problem.query_grid == problem.key_grid
        and not problem.bias
    )


@lru_cache(maxsize=64)
def schedule(problem: Problem, cuts: tuple[Edges, ...]) -> Schedule:
    """The calls that compute a problem; ``cuts`` says how each axis is cut (block patterns are cut in their blocks)."""
    pattern = problem.pattern
    if is_plain_causal(problem):
        every = np.arange(problem.queries)[None]
        return Schedule((Call(every, every, causal=True),), problem.key_grid, problem.query_grid)
    if not isinstance(pattern, Union):
        return _part_schedule(problem, pattern, cuts)
    calls: list[Call] = []
    parts = _flat_parts(pattern)
    for number, part in enumerate(parts):
        for call in _part_schedule(problem, part, cuts).calls:
            calls.extend(_without(call, parts[:number], problem) if number else [call])
    key_grid = padded_key_grid(pattern, problem.query_grid, problem.key_grid)
    return Schedule(tuple(calls), key_grid, None, disjoint=False)


def _part_schedule(problem: Problem, part: Pattern, cuts: tuple[Edges, ...]) -> Schedule:
    if isinstance(part, BlockPattern):
        return _block_schedule(part.table(problem.query_grid[0], problem.key_grid[0]))
    assert isinstance(part, GridPattern)
    return _grid_schedule(problem, part, cuts)


@dataclass(frozen=True)
class Summary:
    """What cutting an axis one way amounts to; products over the axes are those of the grid."""

    pairs: int
    gathered: int
    classes: int
    tiles: int


@lru_cache(maxsize=4096)
def _summary(pattern: GridPattern, axis: int, queries: int, keys: int, how: Edges) -> Summary:
    spans = pattern.axis_spans(axis, queries, keys)
    pairs = gathered = tiles = 0
    looks = []
    for _, _, members in _residues(spans.padded()):
        if not members.queries:
            continue
        edges = _edges(members, how)
        length = np.diff(np.append(edges, members.queries))
        seen = members.counts > 0
        low = np.minimum.reduceat(np.where(seen, members.start, members.keys), edges)
        high = np.maximum(low, np.maximum.reduceat(np.where(seen, members.stop, 0), edges))
        width = high - low
        pairs += int((length * width).sum())
        gathered += int(width.sum())
        tiles += len(edges)
        sums = [np.add.reduceat(table, edges) - length * low for table in (members.start, members.stop)]
        looks.append(np.stack([length, width, *sums], 1))
    classes = len(np.unique(np.concatenate(looks), axis=0)) if looks else 0
    return Summary(pairs, gathered, classes, tiles)


def candidates(problem: Problem) -> list[tuple[tuple[Edges, ...], Summary]]:
    """Ways to cut the queries of a problem's grid, and what each amounts to for one head of one batch entry."""
    pattern = problem.pattern
    parts = [
        p for p in (_flat_parts(pattern) if isinstance(pattern, Union) else [pattern]) if isinstance(p, GridPattern)
    ]
    axes = len(problem.query_grid)
    sizes = [8, 16, 32, 64, 128, 256, 512] if axes == 1 else [2, 4, 8, 16, 32] if axes == 3 else [4, 8, 16, 32, 64]
    choices: list[list[Edges]] = []
    for axis, queries in enumerate(problem.query_grid):
        longest = max(
            (
                -(-queries // spans.step)
                for spans in (p.spans(problem.query_grid, problem.key_grid)[axis] for p in parts)
            ),
            default=queries,
        )
        every: list[Edges] = [("every", size) for size in sizes if size < longest] + [("every", max(longest, 1))]
        steady = min((_runs_of(p, axis, problem) for p in parts), default=0)
        choices.append(every + [("runs", n) for n in (1, 2, 4) if 0 < steady * 2 <= queries])
    found = []
    for cuts in product(*choices):
        pairs = gathered = classes = tiles = 0
        for part in parts:
            summaries = [
                _summary(part, axis, *sizes, cuts[axis])
                for axis, sizes in enumerate(zip(problem.query_grid, problem.key_grid, strict=True))
            ]
            pairs += prod(s.pairs for s in summaries)
            gathered += prod(s.gathered for s in summaries)
            classes += prod(s.classes for s in summaries)
            tiles += prod(s.tiles for s in summaries)
        found.append((cuts, Summary(pairs, gathered, classes, tiles)))
    return found


def _runs_of(pattern: GridPattern, axis: int, problem: Problem) -> int:
    """Number of runs of neighbouring queries with equal spans, over all residue classes."""
    spans = pattern.axis_spans(axis, problem.query_grid[axis], problem.key_grid[axis])
    return sum(len(_edges(members, ("runs", 1))) for _, _, members in _residues(spans.padded()) if members.queries)
