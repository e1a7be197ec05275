"""Neighbors: the keys that one query sees."""

from __future__ import annotations

from functools import reduce

import numpy as np

from fovea.patterns.blocks import BlockPattern
from fovea.patterns.compose import PerHead, Union
from fovea.patterns.pattern import Grid, GridPattern, Pattern, as_grids
from fovea.patterns.spans import BoolArray


def seen_keys(
    pattern: Pattern, query: int | tuple[int, ...], query_grid: int | Grid, key_grid: int | Grid | None = None
) -> BoolArray:
    """``[*padded key grid]``: true where the query at these coordinates sees the key, zero keys around the grid
    included; for a pattern by heads ``[heads, *padded key grid]``.

    >>> from fovea.patterns import Neighborhood
    >>> seen_keys(Neighborhood(3), 4, 5).astype(int)
    array([0, 0, 1, 1, 1])
    """
    query_grid, key_grid = as_grids(query_grid, key_grid)
    pattern.check(query_grid, key_grid)
    query = (query,) if isinstance(query, int | np.integer) else tuple(query)
    if len(query) != len(query_grid) or any(not 0 <= q < n for q, n in zip(query, query_grid, strict=True)):
        raise ValueError(f"query={query}; it must be the coordinates of a token of the grid {query_grid}")
    if isinstance(pattern, PerHead):
        pattern.padding(query_grid, key_grid)
        return np.stack([seen_keys(part, query, query_grid, key_grid) for part in pattern.parts])
    if isinstance(pattern, Union):
        pattern.padding(query_grid, key_grid)
        return reduce(np.logical_or, (seen_keys(part, query, query_grid, key_grid) for part in pattern.parts))
    if isinstance(pattern, BlockPattern):
        return pattern.table(query_grid[0], key_grid[0]).sees(np.array(query[0]), np.arange(key_grid[0]))
    if not isinstance(pattern, GridPattern):
        raise TypeError(f"{type(pattern).__name__} has no keys of a query")
    axes = []
    for q, spans in zip(query, pattern.spans(query_grid, key_grid), strict=True):
        padded = spans.padded()
        seen = np.zeros(padded.keys, np.bool_)
        seen[padded.start[q] : max(padded.start[q], padded.stop[q]) : padded.step] = True
        axes.append(seen)
    return reduce(np.logical_and.outer, axes)
