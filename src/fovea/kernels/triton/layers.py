"""Unions along a sequence, as lists that the kernels walk over: what a row sees is a few intervals of columns.

The intervals of all rows are numbered from their last one (the nearest, under causality): number ``n`` of every row is
layer ``n``. A layer has one interval a row, as the tables of other patterns do, and an entry of a list says which layer
it belongs to, so that a union is one walk and no key is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from fovea.kernels.triton.tables import RowTile, listed_tiles
from fovea.patterns import BlockPattern, GridPattern, Pattern, Union
from fovea.patterns.spans import IntArray

MOST = 32
"""Intervals of a row beyond which a union is refused: its tables would be larger than its tensors."""


def why_not(pattern: Union, queries: int, keys: int) -> str | None:
    """Why the rows of a union are not a few intervals, or none."""
    for part in leaves(pattern):
        if isinstance(part, GridPattern):
            spans = part.axis_spans(0, queries, keys)
            if spans.step != 1 or spans.padding != (0, 0):
                return f"{part} leaves keys out or adds zeros, and the rows of a union must be intervals"
    most = len(layers(pattern, queries, keys))
    return f"its rows see up to {most} intervals of keys; at most {MOST} are taken" if most > MOST else None


def leaves(pattern: Pattern) -> list[Pattern]:
    """The parts of a union, those of unions inside it included."""
    if not isinstance(pattern, Union):
        return [pattern]
    return [leaf for part in pattern.parts for leaf in leaves(part)]


@lru_cache(maxsize=64)
def layers(pattern: Union, queries: int, keys: int) -> IntArray:
    """``[layers, queries, 2]``: start and stop of each interval; equal where a row has fewer."""
    found = [_intervals(part, queries, keys) for part in leaves(pattern)]
    row, start, stop = (np.concatenate(columns) for columns in zip(*found, strict=True))
    real = stop > start
    row, start, stop = row[real], start[real], stop[real]
    # Rows lie one after the other, so that one running maximum serves all of them.
    shift = row * (keys + 1)
    order = np.argsort(start + shift, kind="stable")
    row, start, reach = row[order], start[order], np.maximum.accumulate((stop + shift)[order])
    begins = np.ones(len(row), np.bool_)
    begins[1:] = (start + row * (keys + 1))[1:] > reach[:-1]
    first = np.flatnonzero(begins)
    last = np.append(first, len(row))[1:] - 1
    row, start, stop = row[first], start[first], reach[last] - row[first] * (keys + 1)
    past = np.searchsorted(row, np.arange(queries), side="right")
    number = past[row] - 1 - np.arange(len(row))
    table = np.zeros((int(number.max(initial=0)) + 1, queries, 2), np.int64)
    table[number, row] = np.stack([start, stop], -1)
    table.flags.writeable = False
    return table


def _intervals(part: Pattern, queries: int, keys: int) -> tuple[IntArray, IntArray, IntArray]:
    """Row, start and stop of each interval that a part lets be seen."""
    if isinstance(part, GridPattern):
        spans = part.axis_spans(0, queries, keys)
        return np.arange(queries), spans.start, spans.start + spans.counts
    assert isinstance(part, BlockPattern)
    table = part.table(queries, keys)
    at = table.position + np.arange(queries)
    block = at // table.size - table.first_row
    count = np.diff(table.indptr)[block]
    row = np.repeat(np.arange(queries), count)
    place = np.repeat(table.indptr[block] - np.cumsum(count) + count, count) + np.arange(count.sum())
    start = table.index[place] * table.size
    stop = np.minimum(start + table.size, keys)
    return row, start, np.minimum(stop, at[row] + 1) if table.causal else stop


def layered_lists(
    pattern: Union, queries: int, keys: int, query_tile: int, key_tile: int, inverse: bool
) -> tuple[IntArray, IntArray, IntArray]:
    """``tiles [tiles, 8]``, ``rows [layers * rows, 4]`` and ``columns [entries, 3]``: first column of an entry, one
    past the last, and its layer. With ``inverse`` rows are keys and hold nothing: what sees them stands in the
    queries' tables."""
    table = layers(pattern, queries, keys)
    first = np.arange(0, queries, query_tile)
    seen = table[..., 1] > table[..., 0]
    start, stop = np.where(seen, table[..., 0], keys), np.where(seen, table[..., 1], 0)
    # Of each tile of queries in each layer: what some and what all of its rows see.
    some = np.minimum.reduceat(start, first, axis=1), np.maximum.reduceat(stop, first, axis=1)
    every = np.maximum.reduceat(start, first, axis=1), np.minimum.reduceat(stop, first, axis=1)
    if inverse:
        cut = _key_rows(first, np.minimum(first + query_tile, queries), query_tile, key_tile, keys, some, every)
    else:
        cut = _query_rows(first, np.minimum(first + query_tile, queries), key_tile, some, every)
    tiles, columns = listed_tiles(cut, 3)
    rows = np.zeros((1 if inverse else len(table), keys if inverse else queries, 4), np.int64)
    if not inverse:
        rows[..., :2] = table
    return tiles, rows.reshape(-1, 4), columns


Ends = tuple[IntArray, IntArray]


def _query_rows(first: IntArray, past: IntArray, key_tile: int, some: Ends, every: Ends) -> Iterator[RowTile]:
    for tile, begin in enumerate(first.tolist()):
        full: list[tuple[int, ...]] = []
        partial: list[tuple[int, ...]] = []
        for layer in range(len(some[0])):
            low, high = int(some[0][layer, tile]), int(some[1][layer, tile])
            for at in range(low, high, key_tile):
                to = min(at + key_tile, high)
                whole = to - at == key_tile and every[0][layer, tile] <= at and to <= every[1][layer, tile]
                (full if whole else partial).append((at, to, layer))
        yield begin, int(past[tile]) - begin, full, partial


def _key_rows(
    first: IntArray, past: IntArray, query_tile: int, key_tile: int, keys: int, some: Ends, every: Ends
) -> Iterator[RowTile]:
    for begin in range(0, keys, key_tile):
        end = min(begin + key_tile, keys)
        seen = (some[0] < end) & (some[1] > begin)
        whole = seen & (every[0] <= begin) & (every[1] >= end) & (past - first == query_tile)
        full, partial = (
            [(int(first[tile]), int(past[tile]), int(layer)) for layer, tile in zip(*np.nonzero(which), strict=True)]
            for which in (whole, seen & ~whole)
        )
        yield begin, end - begin, full, partial
