"""A pattern as text: what one query sees on its grid, or, along a sequence, what all see.

Two rows of tokens share a line of half blocks, so that squares look square; the query is shown as ``Q``.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from fovea.patterns import GridPattern, Pattern
from fovea.patterns.spans import BoolArray

WIDTH = 64
"""Largest width of one picture, in characters."""
SEEN_ABOVE_BELOW = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def sketch(pattern: Pattern, grid: tuple[int, ...], query: tuple[int, ...] | None = None) -> list[str]:
    """Lines of text. In two and three dimensions: the keys of ``query`` (the middle one if none is named), in three as
    slices side by side. In one dimension: every query a row, every key a column, made coarser where there are many."""
    if len(grid) == 1:
        return _framed(_coarser(_any_head(pattern, grid)), None)
    query = query or tuple(size // 2 for size in grid)
    seen = seen_by(pattern, grid, query)
    if len(grid) == 2:
        return _framed(_coarser(seen), query if max(grid) <= WIDTH else None)
    across = grid[2] + 2
    slices = min(max(1, (WIDTH + 16) // (across + 1)), grid[0])
    first = min(max(0, query[0] - slices // 2), grid[0] - slices)
    pictures = []
    for depth in range(first, first + slices):
        picture = _framed(seen[depth], query[1:] if depth == query[0] else None)
        pictures.append([f"{depth}".center(across), *picture])
    return [" ".join(parts).rstrip() for parts in zip(*pictures, strict=True)]


def image(pattern: Pattern, grid: tuple[int, ...]) -> NDArray[np.float64]:
    """What :func:`sketch` shows as an image: 1 seen, 0 not, 2 the query, NaN between the slices of a volume."""
    if len(grid) == 1:
        return _any_head(pattern, grid).astype(np.float64)
    query = tuple(size // 2 for size in grid)
    seen = seen_by(pattern, grid, query).astype(np.float64)
    seen[query] = 2
    if len(grid) == 2:
        return seen
    around = seen[max(0, query[0] - 1) : query[0] + 2]
    return np.concatenate([np.pad(slab, ((0, 0), (0, 1)), constant_values=np.nan) for slab in around], axis=1)


def seen_by(pattern: Pattern, grid: tuple[int, ...], query: tuple[int, ...]) -> BoolArray:
    """``[*grid]``: the real keys that one query sees, in any head."""
    if isinstance(pattern, GridPattern):
        seen = np.ones((1,) * len(grid), np.bool_)
        for axis, (spans, place) in enumerate(zip(pattern.spans(grid), query, strict=True)):
            key = np.arange(spans.keys)
            along = (key >= spans.start[place]) & (key < spans.stop[place])
            along &= (key - spans.start[place]) % spans.step == 0
            seen = seen & along.reshape([-1 if other == axis else 1 for other in range(len(grid))])
        return seen
    mask = _any_head(pattern, grid)
    if mask.shape[1] != prod(grid):
        raise ValueError(f"{pattern} pads its keys with zeros; a union of such patterns cannot be sketched")
    return mask[np.ravel_multi_index(query, grid)].reshape(grid)


def _any_head(pattern: Pattern, grid: tuple[int, ...]) -> BoolArray:
    mask = pattern.mask(grid)
    return np.asarray(mask.any(axis=0), dtype=np.bool_) if mask.ndim == 3 else mask


def _coarser(seen: BoolArray) -> BoolArray:
    """At most ``WIDTH`` cells a side; a cell is seen where any token in it is."""
    step = -(-max(seen.shape) // WIDTH)
    if step == 1:
        return seen
    padded = np.pad(seen, [(0, -size % step) for size in seen.shape])
    rows, columns = (size // step for size in padded.shape)
    return padded.reshape(rows, step, columns, step).any(axis=(1, 3))


def _framed(seen: BoolArray, query: tuple[int, ...] | None) -> list[str]:
    height, width = seen.shape
    rows = np.pad(seen, ((0, height % 2), (0, 0)))
    lines = ["┌" + "─" * width + "┐"]
    for row in range(0, height, 2):
        cells = [SEEN_ABOVE_BELOW[bool(a), bool(b)] for a, b in zip(rows[row], rows[row + 1], strict=True)]
        if query is not None and query[0] // 2 == row // 2:
            cells[query[1]] = "Q"
        lines.append("│" + "".join(cells) + "│")
    return [*lines, "└" + "─" * width + "┘"]
