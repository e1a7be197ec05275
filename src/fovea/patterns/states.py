"""States: for each pair of a query block and a key block, whether none, some or all of their pairs attend.

Everything factorises: by axis for grid patterns, by block row for block tables. Nothing here grows with the product of
the numbers of tokens; a table of states grows with that of the numbers of blocks.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from fovea.patterns.blocks import BlockPattern, BlockTable
from fovea.patterns.compose import PerHead, Union
from fovea.patterns.order import Order, Permutation, Pieces, RowMajor
from fovea.patterns.pattern import Grid, GridPattern, Pattern, as_grids
from fovea.patterns.spans import BoolArray, IntArray, Spans

EMPTY, PARTIAL, FULL = 0, 1, 2
States = NDArray[np.uint8]


def range_relations(
    spans: Spans, query_low: IntArray, query_high: IntArray, key_low: IntArray, key_high: IntArray, stride: int = 1
) -> tuple[BoolArray, BoolArray]:
    """``[query ranges, key ranges]``: whether some, and whether all, of the pairs of two coordinate ranges attend.

    Ranges are ``low, low + stride, ..., high`` (none where ``low > high``) on one axis without padding; ``stride`` is
    1 or the step of the spans.
    """
    if stride not in (1, spans.step):
        raise ValueError(f"stride={stride}; ranges may step by 1 or by the spans' step, {spans.step}")
    key_count = np.maximum(0, (key_high - key_low) // stride + 1)
    some = np.zeros((len(query_low), len(key_low)), np.bool_)
    every = np.ones_like(some)
    for residue in range(spans.step):
        first, group = spans.residue(residue)
        if not group.queries:
            continue
        low, high = _members(query_low, query_high, first, spans.step, stride)
        left, right = _members(key_low, key_high, residue, spans.step, stride)
        has_query, has_key = (low <= high)[:, None], (left <= right)[None]
        low, high = np.minimum(low, group.queries - 1), np.clip(high, 0, group.queries - 1)
        seeing = np.append(0, np.cumsum(group.counts > 0))
        begin = np.maximum(low[:, None], np.searchsorted(group.stop, left, side="right")[None])
        end = np.minimum(high[:, None], np.searchsorted(group.start, right, side="right")[None] - 1)
        some |= has_query & has_key & (seeing[np.maximum(begin, end + 1)] > seeing[begin])
        inside = (group.start[high][:, None] <= left) & (group.stop[low][:, None] > right)
        every &= ~has_query | ((right - left + 1 == key_count)[None] & inside)
    return some, every


def _members(low: IntArray, high: IntArray, first: int, step: int, stride: int) -> tuple[IntArray, IntArray]:
    """The part of ranges that lies in the class ``first + m * step``, as ranges of ``m``; empty: ``low > high``."""
    begin, end = -((first - low) // step), (high - first) // step
    if stride > 1:
        end = np.where((low - first) % step == 0, end, begin - 1)
    return begin, end


def _grid_states(spans: tuple[Spans, ...], query: Pieces, key: Pieces) -> States:
    axes = []
    for axis, padded in enumerate(spans):
        ends = [np.stack([p.low[..., axis].ravel(), p.high[..., axis].ravel()], 1) for p in (query, key)]
        ranges = [np.unique(e, axis=0, return_inverse=True) for e in ends]
        (q, q_index), (k, k_index) = ranges
        stride = padded.step if query.step[axis] == key.step[axis] == padded.step else 1
        some, every = range_relations(padded, q[:, 0], q[:, 1], k[:, 0], k[:, 1], stride)
        axes.append((some, every, q_index.reshape(query.low.shape[:2]), k_index.reshape(key.low.shape[:2])))
    shape = (len(query.low), len(key.low))
    some, every = np.zeros(shape, np.bool_), query.whole[:, None] & key.whole[None]
    for i in range(query.low.shape[1]):
        for j in range(key.low.shape[1]):
            empty = query.empty[:, i][:, None] | key.empty[:, j][None]
            pair = [(s[q[:, i]][:, k[:, j]], e[q[:, i]][:, k[:, j]]) for s, e, q, k in axes]
            some |= reduce(np.logical_and, (s for s, _ in pair)) & ~empty
            every &= reduce(np.logical_and, (e for _, e in pair)) | empty
    return _as_states(some, every)


def _as_states(some: BoolArray, every: BoolArray) -> States:
    return some.astype(np.uint8) + (some & every)


def _triangle(x: IntArray) -> IntArray:
    x = np.maximum(x, 0)
    return x * (x + 1) // 2


def block_pairs(table: BlockTable, query_block: int, key_block: int) -> IntArray:
    """``[query blocks, key blocks]``: exact number of attending pairs for blocks of any size, which need not be those
    of the table."""
    size = table.size
    edges = np.union1d(
        np.arange(0, table.queries, query_block), np.arange(-(table.position % size), table.queries, size)
    )
    edges = np.append(edges[edges >= 0], table.queries)
    first, past = edges[:-1], edges[1:]
    rows = (table.position + first) // size - table.first_row

    cuts = np.union1d(np.arange(0, table.keys, key_block), np.arange(0, table.keys, size))
    left, right = cuts, np.append(cuts[1:], table.keys)
    parts = np.searchsorted(cuts, np.arange(0, table.keys + size, size))

    entries = np.diff(table.indptr)[rows]
    segment = np.repeat(np.arange(len(first)), entries)
    block = table.index[np.repeat(table.indptr[rows], entries) + _counter(entries)]
    repeats = parts[block + 1] - parts[block]
    segment, piece = np.repeat(segment, repeats), np.repeat(parts[block], repeats) + _counter(repeats)

    low, high = table.position + first[segment], table.position + past[segment]
    width = right[piece] - left[piece]
    pairs = (high - low) * width
    if table.causal:
        pairs = _triangle(high - left[piece]) - _triangle(low - left[piece])
        pairs -= _triangle(high - right[piece]) - _triangle(low - right[piece])
    counts = np.zeros((-(-table.queries // query_block), -(-table.keys // key_block)), np.int64)
    np.add.at(counts, (first[segment] // query_block, left[piece] // key_block), pairs)
    return counts


def _counter(lengths: IntArray) -> IntArray:
    """``0..length-1`` for each length, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def dilation_of(pattern: Pattern, query_grid: Grid, key_grid: Grid) -> Grid:
    """The step of each axis that all parts of a pattern share; 1 where they differ."""
    if isinstance(pattern, Union | PerHead):
        steps = {dilation_of(part, query_grid, key_grid) for part in pattern.parts}
        return tuple(a[0] if len(set(a)) == 1 else 1 for a in zip(*steps, strict=True))
    if isinstance(pattern, GridPattern):
        return tuple(spans.step for spans in pattern.spans(query_grid, key_grid))
    return (1,) * len(key_grid)


def padded_key_grid(pattern: Pattern, query_grid: Grid, key_grid: Grid) -> Grid:
    """The key grid with the zero keys that the pattern puts around it."""
    padding = pattern.padding(query_grid, key_grid)
    return tuple(before + size + after for size, (before, after) in zip(key_grid, padding, strict=True))


def orders(
    pattern: Pattern, query_grid: Grid, key_grid: Grid, query_tile: Grid | None, key_tile: Grid | None
) -> tuple[Order, Order]:
    """The orders of queries and (padded) keys: row-major, or by tiles where these are given."""
    keys = padded_key_grid(pattern, query_grid, key_grid)
    if query_tile is None and key_tile is None:
        return RowMajor(query_grid), RowMajor(keys)
    if query_tile is None or key_tile is None:
        raise ValueError(f"query_tile={query_tile}, key_tile={key_tile}: give both or neither")
    dilation = dilation_of(pattern, query_grid, key_grid)
    return Permutation(query_grid, query_tile, dilation), Permutation(keys, key_tile, dilation)


def block_states(
    pattern: Pattern | BlockTable,
    query_grid: int | Grid | None = None,
    key_grid: int | Grid | None = None,
    *,
    query_block: int = 128,
    key_block: int = 128,
    query_tile: Grid | None = None,
    key_tile: Grid | None = None,
) -> States:
    """State of each pair of blocks: 0 nothing attends, 1 some pairs do (or a block has places without a token), 2 all
    do.

    Tokens are in row-major order and cut in blocks of ``query_block`` and ``key_block``; or, where ``query_tile`` and
    ``key_tile`` are given, ordered by :class:`~fovea.patterns.order.Permutation`, a tile being a block. Zero keys
    that a pattern puts around the grid count as keys.

    Returns ``[query blocks, key blocks]``, for a pattern by heads ``[heads, query blocks, key blocks]``. In a union a
    pair of blocks counts as full when one part covers it alone.

    >>> from fovea.patterns import Blocks
    >>> block_states(Blocks.sliding(4, window=1), 8, query_block=4, key_block=4)
    array([[1, 0],
           [2, 1]], dtype=uint8)
    """
    if isinstance(pattern, BlockTable):
        return _table_states(pattern, query_block, key_block)
    if query_grid is None:
        raise ValueError("query_grid is missing; only a BlockTable knows its own")
    query_grid, key_grid = as_grids(query_grid, key_grid)
    pattern.check(query_grid, key_grid)
    query, key = orders(pattern, query_grid, key_grid, query_tile, key_tile)
    if isinstance(query, Permutation) and isinstance(key, Permutation):
        query_block, key_block = int(np.prod(query.tile)), int(np.prod(key.tile))
    cut = query.pieces(query_block), key.pieces(key_block)
    return _states(pattern, query_grid, key_grid, cut, (query_block, key_block))


def _states(
    pattern: Pattern, query_grid: Grid, key_grid: Grid, cut: tuple[Pieces, Pieces], blocks: tuple[int, int]
) -> States:
    if isinstance(pattern, GridPattern):
        return _grid_states(tuple(s.padded() for s in pattern.spans(query_grid, key_grid)), *cut)
    if isinstance(pattern, BlockPattern):
        return _table_states(pattern.table(query_grid[0], key_grid[0]), *blocks)
    if isinstance(pattern, Union):
        return reduce(np.maximum, (_states(part, query_grid, key_grid, cut, blocks) for part in pattern.parts))
    if isinstance(pattern, PerHead):
        found = {part: _states(part, query_grid, key_grid, cut, blocks) for part in set(pattern.parts)}
        return np.stack([found[part] for part in pattern.parts])
    raise TypeError(f"{type(pattern).__name__} has no block states")


def _table_states(table: BlockTable, query_block: int, key_block: int) -> States:
    pairs = block_pairs(table, query_block, key_block)
    return _as_states(pairs > 0, pairs == query_block * key_block)
