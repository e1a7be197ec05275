"""What the kernels walk over: for each tile of rows, where the tiles of columns lie and which of them need no mask.

In the forward pass rows are queries and columns are keys; the pass over keys for their gradients has keys for rows and
walks the inverse spans. A tile of several axes is the product of its axes, so that a table an axis is all there is: its
size grows with the length of the axis and not with the number of tokens. Tiles of columns begin where the union of the
row tile's spans begins, not at multiples of their size: a box of keys costs no more than its own length rounded up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from fovea.patterns import BlockPattern, GridPattern, Union
from fovea.patterns.blocks import BlockTable
from fovea.patterns.pattern import Grid
from fovea.patterns.spans import IntArray, Spans

AXES = 3
"""Grids of fewer axes get axes of size 1 in front."""

RECORD = 8
"""Integers of a row tile on one axis. Of grids: first row, rows, coordinate of the column 0 of its residue class, (not
used), first column, column tiles, first full tile, full tiles. Of lists: first row, rows, 0, (not used), and the ranges
of its full and of its partial entries in the list of columns."""


@dataclass(frozen=True, eq=False)
class AxisWalk:
    """One axis of a walk, on the host.

    Attributes:
        tiles: ``[tiles, 8]``, see ``RECORD``; columns count the members of a residue class.
        rows: ``[rows, 4]``: first column seen, one past the last, where the row stands among the columns (for the
            relative bias), and the coordinate of column 0 of its residue class.
    """

    tiles: IntArray
    rows: IntArray

    @property
    def visited(self) -> int:
        """Pairs of tiles."""
        return int(self.tiles[:, 5].sum())

    @property
    def full(self) -> int:
        """Pairs of tiles that need no mask."""
        return int(self.tiles[:, 7].sum())


def axis_walk(
    spans: Spans, row_tile: int, column_tile: int, before: int = 0, stands: IntArray | None = None
) -> AxisWalk:
    """Cut one axis in tiles of at most ``row_tile`` rows, which visit tiles of ``column_tile`` columns.

    Args:
        spans: of the axis, zero keys counted as keys.
        row_tile, column_tile: sizes.
        before: zero keys before the axis; coordinates in the tables do not count them.
        stands: where each row stands among the columns, in members of its class; by default its position.
    """
    tiles: list[IntArray] = []
    rows = np.zeros((spans.queries, 4), np.int64)
    for residue in range(spans.step):
        first, members = spans.residue(residue)
        if not members.queries:
            continue
        at = first + spans.step * np.arange(members.queries)
        count = members.counts
        position = members.position if stands is None else stands[at]
        rows[at] = np.stack(
            [members.start, members.start + count, position, np.full_like(count, residue - before)], axis=-1
        )
        tiles.append(min((_cut(members, edges, column_tile, first, spans.step, residue - before)
                          for edges in _edges(members, row_tile)), key=lambda cut: int(cut[:, 5].sum())))  # fmt: skip
    return AxisWalk(np.concatenate(tiles) if tiles else np.zeros((0, RECORD), np.int64), rows)


def _edges(members: Spans, size: int) -> Iterator[IntArray]:
    """Ways to cut the rows of a class: every ``size``, or where spans change, so that a tile holds whole runs of rows
    with equal spans (windows, stride groups) or a run holds whole tiles."""
    yield np.arange(0, members.queries, size)
    changes = (np.diff(members.start) != 0) | (np.diff(members.stop) != 0)
    runs = np.concatenate([[0], 1 + np.flatnonzero(changes), [members.queries]])
    if len(runs) - 1 == members.queries:
        return
    edges = [0]
    for begin, end in zip(runs[:-1].tolist(), runs[1:].tolist(), strict=True):
        if end - edges[-1] > size and begin > edges[-1]:
            edges.append(begin)
        while end - edges[-1] > size:
            edges.append(edges[-1] + size)
    yield np.array(edges)


def _cut(members: Spans, edges: IntArray, size: int, first: int, step: int, residue: int) -> IntArray:
    seen = members.counts > 0
    start, stop = members.start, members.start + members.counts
    low = np.minimum.reduceat(np.where(seen, start, members.keys), edges)
    high = np.maximum(low, np.maximum.reduceat(np.where(seen, stop, 0), edges))
    full_low = np.maximum.reduceat(np.where(seen, start, members.keys), edges)
    full_high = np.maximum(full_low, np.minimum.reduceat(np.where(seen, stop, 0), edges))
    ahead = -(-(full_low - low) // size)
    found = np.zeros((len(edges), RECORD), np.int64)
    # The tiles begin at the union's first column, or so that a tile begins where all rows begin to see.
    for number, origin in enumerate((low, full_low - ahead * size)):
        visits = np.where(high > low, -(-(high - origin) // size), 0)
        full_first = -(-(full_low - origin) // size)
        full = np.maximum(0, (full_high - origin) // size - full_first)
        better = (visits <= found[:, 5]) & (full > found[:, 7]) if number else np.ones(len(edges), np.bool_)
        found[better, 4:] = np.stack([origin, visits, np.where(full > 0, full_first, 0), full], axis=-1)[better]
    found[:, 0] = first + step * edges
    found[:, 1] = np.diff(np.append(edges, members.queries))
    found[:, 2] = residue
    return found


@lru_cache(maxsize=4096)
def pattern_axis(
    pattern: GridPattern, axis: int, queries: int, keys: int, query_tile: int, key_tile: int, inverse: bool
) -> AxisWalk:
    """One axis of a grid pattern; with ``inverse`` rows are the real keys and columns the queries."""
    spans = pattern.axis_spans(axis, queries, keys)
    before = spans.padding[0]
    if not inverse:
        return axis_walk(spans.padded(), query_tile, key_tile, before)
    stands = (np.arange(keys) + before) // spans.step
    return axis_walk(spans.inverse(), key_tile, query_tile, 0, stands)


@dataclass(frozen=True, eq=False)
class Walk:
    """All axes of a walk, as tensors that a kernel takes.

    Attributes:
        tiles, rows: of each of the three axes, int32 (see ``AxisWalk``).
        columns: ``[entries, 2]`` (layered: 3), first column and one past the last of each entry of a list; one zero
            where the columns come from the tables of the axes.
        counts: row tiles of each axis.
        steps: of each axis.
        axes: how many axes the pattern has.
        lists: whether columns are listed.
        layered: whether entries say which of the rows' intervals they belong to (see ``layers``).
        padded: whether columns may lie outside of the grid and count as zeros.
        visited, full: pairs of tiles, and those that need no mask.
    """

    tiles: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    columns: Tensor
    counts: Grid
    steps: Grid
    axes: int
    lists: bool
    padded: bool
    visited: int
    full: int
    layered: bool = False

    @property
    def programs(self) -> int:
        """Row tiles."""
        return prod(self.counts)


ONE = AxisWalk(np.array([[0, 1, 0, 0, 0, 1, 0, 1]]), np.array([[0, 1, 0, 0]]))
"""An axis of one row that sees one column."""


@lru_cache(maxsize=128)
def walk(
    pattern: GridPattern | BlockPattern | Union,
    query_grid: Grid,
    key_grid: Grid,
    query_tile: Grid,
    key_tile: Grid,
    inverse: bool,
    device: torch.device,
) -> Walk:
    """The walk of a pattern over tiles of three axes; with ``inverse`` from keys to queries."""
    if isinstance(pattern, BlockPattern):
        table = pattern.table(query_grid[0], key_grid[0])
        return listed(*block_lists(table, query_tile[-1], key_tile[-1], inverse), device)
    if isinstance(pattern, Union):
        from fovea.kernels.triton.layers import layered_lists

        tables = layered_lists(pattern, query_grid[0], key_grid[0], query_tile[-1], key_tile[-1], inverse)
        return listed(*tables, device)
    missing = AXES - len(query_grid)
    axes = [ONE] * missing + [
        pattern_axis(pattern, axis, *sizes, query_tile[missing + axis], key_tile[missing + axis], inverse)
        for axis, sizes in enumerate(zip(query_grid, key_grid, strict=True))
    ]
    spans = pattern.spans(query_grid, key_grid)
    return Walk(
        tiles=tuple(on_device(axis.tiles, device) for axis in axes),
        rows=tuple(on_device(axis.rows, device) for axis in axes),
        columns=torch.zeros(2, dtype=torch.int32, device=device),
        counts=tuple(len(axis.tiles) for axis in axes),
        steps=(1,) * missing + tuple(axis.step for axis in spans),
        axes=len(query_grid),
        lists=False,
        padded=not inverse and any(axis.padding != (0, 0) for axis in spans),
        visited=prod(axis.visited for axis in axes),
        full=prod(axis.full for axis in axes),
    )


def listed(tiles: IntArray, rows: IntArray, columns: IntArray, device: torch.device) -> Walk:
    """The walk of a table of lists along one axis."""
    return Walk(
        tiles=(on_device(ONE.tiles, device), on_device(ONE.tiles, device), on_device(tiles, device)),
        rows=(on_device(ONE.rows, device), on_device(ONE.rows, device), on_device(rows, device)),
        columns=on_device(columns if columns.size else np.zeros((1, columns.shape[1]), np.int64), device),
        counts=(1, 1, len(tiles)),
        steps=(1, 1, 1),
        axes=1,
        lists=True,
        padded=False,
        visited=int((tiles[:, 5] - tiles[:, 4] + tiles[:, 7] - tiles[:, 6]).sum()),
        full=int((tiles[:, 5] - tiles[:, 4]).sum()),
        layered=columns.shape[1] == 3,
    )


def on_device(table: IntArray, device: torch.device) -> Tensor:
    # Without waiting: what is copied from pageable memory is staged before the call returns.
    return torch.from_numpy(table.astype(np.int32)).contiguous().to(device, non_blocking=True)


def block_lists(
    table: BlockTable, query_tile: int, key_tile: int, inverse: bool = False
) -> tuple[IntArray, IntArray, IntArray]:
    """``tiles, rows, columns`` of a block table: blocks cut in row tiles, runs of seen blocks cut in column tiles."""
    query, key = np.arange(table.queries), np.arange(table.keys)
    if inverse:
        seen_from = np.clip(key - table.position, 0, table.queries) if table.causal else np.zeros_like(key)
        rows = np.stack([seen_from, np.full_like(key, table.queries), key, np.zeros_like(key)], axis=-1)
        tiles = _key_rows(table, key_tile, query_tile)
    else:
        seen_to = (
            np.clip(query + table.position + 1, 0, table.keys) if table.causal else np.full_like(query, table.keys)
        )
        rows = np.stack([np.zeros_like(query), seen_to, query + table.position, np.zeros_like(query)], axis=-1)
        tiles = _query_rows(table, query_tile, key_tile)
    records, columns = listed_tiles(tiles, 2)
    return records, rows, columns


Entry = tuple[int, int]
RowTile = tuple[int, int, list[tuple[int, ...]], list[tuple[int, ...]]]
"""First row of a tile, its rows, and its entries without and with a mask."""


def listed_tiles(tiles: Iterable[RowTile], width: int) -> tuple[IntArray, IntArray]:
    """Records of tiles, and all of their entries of ``width`` integers one after the other."""
    records: list[list[int]] = []
    columns: list[tuple[int, ...]] = []
    for first, count, full, partial in tiles:
        at = len(columns)
        columns += full + partial
        records.append([first, count, 0, 0, at, at + len(full), at + len(full), len(columns)])
    return np.array(records, np.int64).reshape(-1, RECORD), np.array(columns, np.int64).reshape(-1, width)


def _runs(blocks: IntArray) -> Iterator[Entry]:
    """First and last block of each run of neighbours."""
    for run in np.split(blocks, 1 + np.flatnonzero(np.diff(blocks) != 1)):
        if len(run):
            yield int(run[0]), int(run[-1])


def _query_rows(table: BlockTable, row_tile: int, column_tile: int) -> Iterator[RowTile]:
    for row in range(table.rows):
        block = table.first_row + row
        low = max(block * table.size, table.position)
        high = min((block + 1) * table.size, table.position + table.queries)
        runs = list(_runs(table.row(row)))
        for begin in range(low, high, row_tile):
            end = min(begin + row_tile, high)
            full: list[tuple[int, ...]] = []
            partial: list[tuple[int, ...]] = []
            for first, last in runs:
                stop = min((last + 1) * table.size, table.keys, *([end] if table.causal else []))
                for at in range(first * table.size, stop, column_tile):
                    to = min(at + column_tile, stop)
                    whole = to - at == column_tile and (not table.causal or to - 1 <= begin)
                    (full if whole else partial).append((at, to))
            yield begin - table.position, end - begin, full, partial


def _key_rows(table: BlockTable, row_tile: int, column_tile: int) -> Iterator[RowTile]:
    start, rows = table.inverse()
    for block in range(len(start) - 1):
        low, high = block * table.size, min((block + 1) * table.size, table.keys)
        runs = list(_runs(rows[start[block] : start[block + 1]]))
        for begin in range(low, high, row_tile):
            end = min(begin + row_tile, high)
            full: list[tuple[int, ...]] = []
            partial: list[tuple[int, ...]] = []
            for first, last in runs:
                at = max((table.first_row + first) * table.size, table.position, *([begin] if table.causal else []))
                stop = min((table.first_row + last + 1) * table.size, table.position + table.queries)
                for query in range(at, stop, column_tile):
                    to = min(query + column_tile, stop)
                    whole = to - query == column_tile and (not table.causal or query >= end - 1)
                    (full if whole else partial).append((query - table.position, to - table.position))
            yield begin, end - begin, full, partial
