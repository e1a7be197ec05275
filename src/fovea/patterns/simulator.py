"""Simulator: how much of a pattern's saved work a tiled kernel can turn into saved time (GNA, arXiv 2504.16922).

A kernel works on whole tiles, so it computes more pairs than the pattern has, and it masks tiles that are not full.
Both follow from tile shapes by counting; nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod

from fovea.patterns.grid import Neighborhood
from fovea.patterns.order import Permutation
from fovea.patterns.pattern import Grid, GridPattern, as_grid, as_grids, at_axis
from fovea.patterns.tiles import AxisTiles, Tiling

MASK_COST = 1.0
"""Extra time of a masked tile over a full one. Published kernel times of sliding windows, against those of fully
block-sparse ones on the same GPU, say that a masked tile takes about twice as long (2-D and 3-D, H100)."""


@dataclass(frozen=True)
class Simulation:
    """What tiles make of a pattern.

    Attributes:
        query_tile, key_tile: tile shapes.
        pairs, dense_pairs: (query, key) pairs of the pattern, and of dense attention.
        tiles, dense_tiles: pairs of tiles visited, and in all.
        partial: visited pairs of tiles that need a mask.
        worst, key_tiles: product over axes of the most key tiles that a query tile visits, and of all key tiles.
        worst_keys: product over axes of the keys in these tiles.
        keys: number of keys.
        computed_pairs: pairs in the visited tiles, padding included.
        permuted_tokens: tokens read or written to bring one tensor of queries and one of keys in tile order, or back.
    """

    query_tile: Grid
    key_tile: Grid
    pairs: int
    dense_pairs: int
    tiles: int
    dense_tiles: int
    partial: int
    worst: int
    key_tiles: int
    worst_keys: int
    keys: int
    computed_pairs: int
    permuted_tokens: tuple[int, int]

    @property
    def flop_bound(self) -> float:
        """Speed-up over dense attention that the pattern's sparsity alone promises."""
        return self.dense_pairs / self.pairs

    @property
    def tile_bound(self) -> float:
        """Speed-up if time is the number of visited tiles."""
        return self.dense_tiles / self.tiles

    @property
    def worst_tile_bound(self) -> float:
        """Speed-up if every query tile visits as many key tiles as the busiest one; this is the figure that the authors
        publish."""
        return self.key_tiles / self.worst

    @property
    def worst_token_bound(self) -> float:
        """The same in keys: key tiles that the grid cuts count in dense attention with the keys they hold."""
        return self.keys / self.worst_keys

    @property
    def block_sparse(self) -> bool:
        """Whether no visited tile needs a mask."""
        return self.partial == 0

    @property
    def waste(self) -> float:
        """Share of the computed pairs that the pattern does not have."""
        return 1 - self.pairs / self.computed_pairs

    def predicted_speedup(self, mask_cost: float = MASK_COST) -> float:
        """Speed-up over dense attention on the same tiles, a masked tile taking ``1 + mask_cost`` times as long."""
        return self.dense_tiles / (self.tiles + mask_cost * self.partial)

    def permutation_bytes(self, heads: int, head_dim: int, itemsize: int = 2, batch: int = 1) -> int:
        """Bytes read and written to bring query, key and value in tile order and the output back; 0 where the order is
        row-major already."""
        queries, keys = self.permuted_tokens
        return 2 * (queries + keys) * batch * heads * head_dim * itemsize

    def explain(self) -> str:
        """The report, one line a number."""
        shapes = "x".join(map(str, self.query_tile)), "x".join(map(str, self.key_tile))
        rows = [
            ("tiles of queries / keys", f"{shapes[0]} / {shapes[1]}"),
            ("sparsity", f"{1 - 1 / self.flop_bound:.1%}"),
            ("bound by operations", f"{self.flop_bound:.2f}x"),
            ("bound by visited tiles", f"{self.tile_bound:.2f}x"),
            ("bound by the busiest tile", f"{self.worst_tile_bound:.2f}x"),
            ("visited tiles that need a mask", f"{self.partial} of {self.tiles} ({self.partial / self.tiles:.0%})"),
            ("computed pairs outside the pattern", f"{self.waste:.1%}"),
            ("predicted speed-up over dense", f"{self.predicted_speedup():.2f}x"),
        ]
        return "\n".join(f"{name:<36}{value}" for name, value in rows)


@dataclass(frozen=True)
class _AxisCount:
    """One axis, summed over its residue classes (their tiles do not mix, so products over axes stay exact)."""

    pairs: int
    dense_pairs: int
    tiles: int
    full: int
    dense_tiles: int
    worst: int
    key_tiles: int
    keys: int


def _count(axes: Iterable[AxisTiles], keys: int, dense_pairs: int) -> _AxisCount:
    pairs = tiles = full = dense = worst = key_tiles = 0
    for axis in axes:
        visited = axis.last - axis.first
        pairs += axis.spans.total
        tiles += int(visited.sum())
        full += int((axis.full_last - axis.full_first).sum())
        dense += axis.query_tiles
        worst = max(worst, int(visited.max(initial=0)))
        key_tiles += axis.key_tiles
    return _AxisCount(pairs, dense_pairs, tiles, full, dense * key_tiles, worst, key_tiles, keys)


def _simulation(
    counts: Sequence[_AxisCount], query_tile: Grid, key_tile: Grid, permuted: tuple[int, int]
) -> Simulation:
    tiles, worst = prod(c.tiles for c in counts), prod(c.worst for c in counts)
    return Simulation(
        query_tile,
        key_tile,
        pairs=prod(c.pairs for c in counts),
        dense_pairs=prod(c.dense_pairs for c in counts),
        tiles=tiles,
        dense_tiles=prod(c.dense_tiles for c in counts),
        partial=tiles - prod(c.full for c in counts),
        worst=worst,
        key_tiles=prod(c.key_tiles for c in counts),
        worst_keys=worst * prod(key_tile),
        keys=prod(c.keys for c in counts),
        computed_pairs=tiles * prod(query_tile) * prod(key_tile),
        permuted_tokens=permuted,
    )


def _permuted(grids: tuple[Grid, Grid], tiles: tuple[Grid, Grid], step: Grid) -> tuple[int, int]:
    if len(step) == 1 and step == (1,):
        return 0, 0
    queries, keys = (prod(grid) + Permutation(grid, tile, step).length for grid, tile in zip(grids, tiles, strict=True))
    return queries, keys


def simulate(
    pattern: GridPattern,
    query_grid: int | Grid,
    key_grid: int | Grid | None = None,
    *,
    query_tile: int | Grid,
    key_tile: int | Grid,
) -> Simulation:
    """Count what tiles of these shapes make of a grid pattern.

    >>> simulate(Neighborhood((80, 80)), (256, 256), query_tile=(16, 16), key_tile=(16, 8)).worst_tile_bound
    6.095238095238095
    """
    tiling = Tiling(pattern, query_grid, key_grid, query_tile, key_tile)
    counts = [
        _count((axis for _, _, axis in classes), spans.keys, spans.queries * spans.keys)
        for classes, spans in zip(tiling.axis_classes, tiling.spans, strict=True)
    ]
    padded = tuple(spans.keys for spans in tiling.spans)
    tiles = tiling.query_tile, tiling.key_tile
    return _simulation(counts, *tiles, _permuted((tiling.query_grid, padded), tiles, tiling.step))


@lru_cache(maxsize=65536)
def _neighborhood_count(axis: Neighborhood, size: int, query_tile: int, key_tile: int) -> _AxisCount:
    tiling = Tiling(axis, size, size, query_tile, key_tile)
    return _count((tiles for _, _, tiles in tiling.axis_classes[0]), size, size * size)


def _strides(window: int) -> list[int]:
    return list(range(1, window + 1))


def powers_of_two(window: int) -> list[int]:
    """The strides 1, 2, 4, ... up to the window."""
    return [1 << power for power in range(window.bit_length())]


def block_sparse_stride(
    window: int,
    size: int,
    query_tile: int,
    key_tile: int,
    *,
    dilation: int = 1,
    strides: Iterable[int] | None = None,
) -> int | None:
    """The smallest stride for which a neighborhood on an axis of ``size`` needs no mask in any visited tile; ``None``
    where there is none. ``strides``: those to try, all up to the window if not given.

    >>> block_sparse_stride(2048, 32768, 128, 128, strides=powers_of_two(2048))
    256
    """
    for stride in sorted(strides or _strides(window)):
        count = _neighborhood_count(Neighborhood(window, stride, dilation), size, query_tile, key_tile)
        if count.full == count.tiles:
            return stride
    return None


@dataclass(frozen=True)
class Candidate:
    """A neighborhood with its stride chosen, and what the tiles make of it."""

    pattern: Neighborhood
    simulation: Simulation


def search(
    pattern: Neighborhood,
    grid: int | Grid,
    tiles: Sequence[tuple[Grid, Grid]],
    *,
    strides: Sequence[Iterable[int]] | None = None,
    mask_cost: float = MASK_COST,
) -> list[Candidate]:
    """All strides and tile shapes of a neighborhood, the best predicted first; of equals, the smaller stride first.

    Args:
        pattern: its window, dilation and causal axes are kept, its stride is not.
        grid: of queries and keys.
        tiles: pairs ``(query tile, key tile)`` that a kernel offers.
        strides: those to try on each axis; powers of two, divisors of the window and the window itself if not given.
        mask_cost: extra time of a masked tile over a full one.
    """
    grid, _ = as_grids(grid, None)
    pattern.check(grid, grid)
    windows = [at_axis(pattern.window, axis) for axis in range(len(grid))]
    tried = [sorted(set(s)) for s in strides] if strides else [_likely(window) for window in windows]
    found = []
    for query_tile, key_tile in tiles:
        query_tile, key_tile = as_grid(query_tile, "query_tile"), as_grid(key_tile, "key_tile")
        dilation = tuple(at_axis(pattern.dilation, axis) for axis in range(len(grid)))
        permuted = _permuted((grid, grid), (query_tile, key_tile), dilation)
        for chosen in product(*tried):
            counts = [
                _neighborhood_count(
                    Neighborhood(window, stride, dilation[axis], _causal(pattern, axis)),
                    grid[axis],
                    query_tile[axis],
                    key_tile[axis],
                )
                for axis, (window, stride) in enumerate(zip(windows, chosen, strict=True))
            ]
            candidate = replace(pattern, window=tuple(windows), stride=tuple(chosen))
            found.append(Candidate(candidate, _simulation(counts, query_tile, key_tile, permuted)))
    return sorted(found, key=lambda c: (-c.simulation.predicted_speedup(mask_cost), prod(_as_tuple(c.pattern.stride))))


def _as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _causal(pattern: Neighborhood, axis: int) -> bool:
    return bool(at_axis(pattern.causal, axis))


def _likely(window: int) -> list[int]:
    return sorted({*powers_of_two(window), *(s for s in range(1, window + 1) if window % s == 0)})
