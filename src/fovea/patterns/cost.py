"""Cost: exact pairs, floating-point operations and bytes of attention under a pattern."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from math import gcd, prod

import numpy as np

from fovea.patterns.blocks import BlockPattern
from fovea.patterns.compose import PerHead, Union
from fovea.patterns.pattern import Grid, GridPattern, Pattern, as_grids
from fovea.patterns.spans import IntArray, Spans

BACKWARD = 2.5
"""Operations of a backward pass that recomputes the scores, over those of the forward pass: five products for two."""


@dataclass(frozen=True)
class Cost:
    """What attention costs under a pattern, counted and not measured.

    Attributes:
        pairs: (query, key) pairs over all heads of one batch element, zero keys included.
        dense_pairs: pairs if every query saw every real key.
        forward, backward: floating-point operations of the two matrix products over the pairs, a multiply-add being
            two; the softmax is not counted.
        bytes: of query, key and value read once, and output and log-sum-exp (float32) written once.
    """

    pairs: int
    dense_pairs: int
    forward: int
    backward: int
    bytes: int

    @property
    def density(self) -> float:
        """``pairs / dense_pairs``; 0 where there is nothing to see. Above 1 only by zero keys."""
        return self.pairs / self.dense_pairs if self.dense_pairs else 0.0

    @property
    def intensity(self) -> float:
        """Forward operations a byte."""
        return self.forward / self.bytes if self.bytes else 0.0


def cost(
    pattern: Pattern,
    query_grid: int | Grid,
    key_grid: int | Grid | None = None,
    *,
    batch: int = 1,
    heads: int = 1,
    kv_heads: int | None = None,
    head_dim: int = 64,
    value_dim: int | None = None,
    itemsize: int = 2,
) -> Cost:
    """Count what a pattern costs; ``itemsize`` is the bytes of one number.

    >>> from fovea.patterns import Causal
    >>> cost(Causal(), 4, head_dim=8).forward
    320
    """
    query_grid, key_grid = as_grids(query_grid, key_grid)
    kv_heads, value_dim = kv_heads or heads, value_dim or head_dim
    if isinstance(pattern, PerHead):
        if heads not in (1, pattern.heads):
            raise ValueError(f"heads={heads}; {pattern} is made for {pattern.heads}")
        heads = pattern.heads
        total = count_pairs(pattern, query_grid, key_grid)
    else:
        total = heads * count_pairs(pattern, query_grid, key_grid)
    queries, keys = prod(query_grid), prod(key_grid)
    forward = 2 * batch * total * (head_dim + value_dim)
    numbers = heads * queries * (head_dim + value_dim) + kv_heads * keys * (head_dim + value_dim)
    moved = batch * (itemsize * numbers + 4 * heads * queries)
    return Cost(total, heads * queries * keys, forward, int(BACKWARD * forward), moved)


def count_pairs(pattern: Pattern, query_grid: int | Grid, key_grid: int | Grid | None = None) -> int:
    """Exact number of (query, key) pairs, over all heads for a pattern by heads; pairs of a union count once."""
    query_grid, key_grid = as_grids(query_grid, key_grid)
    pattern.check(query_grid, key_grid)
    if isinstance(pattern, PerHead):
        return sum(count_pairs(part, query_grid, key_grid) for part in pattern.parts)
    if isinstance(pattern, Union):
        pattern.padding(query_grid, key_grid)
        parts = list(dict.fromkeys(_flat(pattern)))
        if all(isinstance(part, GridPattern) for part in parts):
            spans = [part.spans(query_grid, key_grid) for part in parts if isinstance(part, GridPattern)]
            return _union_of_products(spans)
        return _union_of_lists(parts, query_grid[0], key_grid[0])
    if isinstance(pattern, GridPattern | BlockPattern):
        return pattern.pairs(query_grid, key_grid)
    raise TypeError(f"{type(pattern).__name__} has no count of pairs")


def _flat(pattern: Pattern) -> list[Pattern]:
    if isinstance(pattern, Union):
        return [inner for part in pattern.parts for inner in _flat(part)]
    return [pattern]


def _union_of_products(parts: list[tuple[Spans, ...]]) -> int:
    """By inclusion and exclusion: what several products share is again a product of progressions."""
    total = 0
    for size in range(1, len(parts) + 1):
        for chosen in combinations(parts, size):
            total -= (-1) ** size * prod(_shared(axis) for axis in zip(*chosen, strict=True))
    return total


Progressions = tuple[IntArray, IntArray, int]
"""``first, stop, step``: the numbers ``first, first + step, ... < stop``, for each query."""


def _meet(a: Progressions, b: Progressions) -> Progressions:
    """What two progressions share, which is one too (Chinese remainders)."""
    (a_first, a_stop, a_step), (b_first, b_stop, b_step) = a, b
    common = gcd(a_step, b_step)
    step = a_step // common * b_step
    apart = b_first - a_first
    factor = pow(a_step // common, -1, b_step // common) if b_step > common else 0
    first = a_first + a_step * (apart // common * factor % (b_step // common))
    low = np.maximum(a_first, b_first)
    first = first + -((first - low) // step) * step
    return first, np.where(apart % common == 0, np.minimum(a_stop, b_stop), first), step


def _shared(axis: tuple[Spans, ...]) -> int:
    first, stop, step = reduce(_meet, ((spans.start, spans.stop, spans.step) for spans in axis))
    return int(np.maximum(0, -((first - stop) // step)).sum())


def _union_of_lists(parts: list[Pattern], queries: int, keys: int) -> int:
    """On sequences: each part gives runs of keys for each query; the runs of a query are swept from left to right."""
    rows = max(1, (1 << 22) // max(keys, 1))
    return sum(
        _swept([_runs(part, queries, keys, low, min(low + rows, queries)) for part in parts], keys)
        for low in range(0, queries, rows)
    )


def _swept(runs: list[tuple[IntArray, IntArray, IntArray]], keys: int) -> int:
    query, start, stop = (np.concatenate(column) for column in zip(*runs, strict=True))
    begin, end = query * (keys + 1) + start, query * (keys + 1) + stop
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], end[order]
    covered = np.append(0, np.maximum.accumulate(end)[:-1]) if len(end) else end
    return int(np.maximum(0, end - np.maximum(begin, covered)).sum())


def _runs(part: Pattern, queries: int, keys: int, low: int, high: int) -> tuple[IntArray, IntArray, IntArray]:
    """``query, start, stop`` of the runs of neighbouring keys that the queries ``[low, high)`` see."""
    query = np.arange(low, high)
    if isinstance(part, BlockPattern):
        table = part.table(queries, keys)
        row = (table.position + query) // table.size - table.first_row
        lengths = np.diff(table.indptr)[row]
        first = np.repeat(table.indptr[row] - np.cumsum(lengths) + lengths, lengths)
        block = table.index[first + np.arange(len(first))]
        query = np.repeat(query, lengths)
        last = np.minimum(keys, table.position + query + 1) if table.causal else keys
        stop = np.minimum((block + 1) * table.size, last)
        return query, block * table.size, stop
    if not isinstance(part, GridPattern):
        raise TypeError(f"{type(part).__name__} has no runs of keys")
    (spans,) = part.spans((queries,), (keys,))
    start, count = spans.start[low:high], spans.counts[low:high]
    if spans.step == 1:
        return query, start, start + count
    inside = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    key = np.repeat(start, count) + inside * spans.step
    return np.repeat(query, count), key, key + 1
