"""A pattern as text: what one query sees on its grid, or, along a sequence, what all see.

Two rows of tokens share a line of half blocks, so that squares look square; the query is shown as ``Q``.
"""

from __future__ import annotations

import numpy as np

from fovea.patterns import Pattern
from fovea.patterns.neighbors import seen_keys
from fovea.patterns.spans import BoolArray
from fovea.patterns.states import block_states

WIDTH = 64
"""Largest side of one picture, in cells."""
ACROSS = 78
"""Characters that slices of a volume may take side by side."""
HALF_BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def sketch(pattern: Pattern, grid: tuple[int, ...], query: tuple[int, ...] | None = None) -> list[str]:
    """Lines of text. In two and three dimensions: the keys of ``query`` (the middle one if none is named), in three as
    slices side by side. In one dimension: every query a row, every key a column. A cell is filled where any head sees
    any of its keys; where there are many tokens, a cell holds several."""
    if len(grid) == 1:
        return _framed(_sequence(pattern, grid[0]), None)
    query = query or tuple(size // 2 for size in grid)
    seen = seen_by(pattern, grid, query)
    if len(grid) == 2:
        return _framed(*_coarser(seen, query))
    across = min(grid[2], WIDTH) + 2
    count = min(max(1, (ACROSS + 1) // (across + 1)), grid[0])
    first = min(max(0, query[0] - count // 2), grid[0] - count)
    pictures = []
    for depth in range(first, first + count):
        slab, place = _coarser(seen[depth], query[1:])
        pictures.append([f"{depth}".center(across), *_framed(slab, place if depth == query[0] else None)])
    return [" ".join(parts).rstrip() for parts in zip(*pictures, strict=True)]


def seen_by(pattern: Pattern, grid: tuple[int, ...], query: tuple[int, ...]) -> BoolArray:
    """``[*grid]``: the keys that one query sees, in any head; zero keys around the grid are left out."""
    seen = seen_keys(pattern, query, grid)
    if seen.ndim > len(grid):
        seen = np.any(seen, axis=0, keepdims=True)[0]
    inside = (slice(before, before + size) for (before, _), size in zip(pattern.padding(grid, grid), grid, strict=True))
    return seen[tuple(inside)]


def _sequence(pattern: Pattern, tokens: int) -> BoolArray:
    """Queries downwards, keys to the right, at most ``WIDTH`` cells a side."""
    step = -(-tokens // WIDTH)
    states = block_states(pattern, tokens, query_block=step, key_block=step)
    return (states if states.ndim == 2 else states.max(axis=0)) > 0


def _coarser(seen: BoolArray, query: tuple[int, ...]) -> tuple[BoolArray, tuple[int, ...]]:
    """At most ``WIDTH`` cells a side; a cell is seen where any token in it is."""
    step = -(-max(seen.shape) // WIDTH)
    padded = np.pad(seen, [(0, -size % step) for size in seen.shape])
    rows, columns = (size // step for size in padded.shape)
    cells = padded.reshape(rows, step, columns, step).any(axis=(1, 3))
    return np.asarray(cells, np.bool_), tuple(place // step for place in query)


def _framed(seen: BoolArray, query: tuple[int, ...] | None) -> list[str]:
    height, width = seen.shape
    rows = np.pad(seen, ((0, height % 2), (0, 0)))
    lines = ["┌" + "─" * width + "┐"]
    for row in range(0, height, 2):
        cells = [HALF_BLOCKS[bool(above), bool(below)] for above, below in zip(rows[row], rows[row + 1], strict=True)]
        if query is not None and query[0] // 2 == row // 2:
            cells[query[1]] = "Q"
        lines.append("│" + "".join(cells) + "│")
    return [*lines, "└" + "─" * width + "┘"]
