"""Pictures of patterns for the README and the documentation: what one query sees."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fovea.patterns import parse

GRID = (24, 24)
QUERY = (9, 3)
PATTERNS = {
    "window": "window:size=8",
    "shifted window": "window:size=8,shift=4",
    "halo": "halo:block=8,halo=3",
    "neighborhood": "neighborhood:window=9",
    "dilated": "neighborhood:window=7,dilation=3",
    "axial": "union(sliding:left=0x23,right=0x23; sliding:left=23x0,right=23x0)",
}
UNSEEN, SEEN, SELF = (0.925, 0.93, 0.945), (0.36, 0.47, 0.86), (0.95, 0.55, 0.15)


def colours(text: str, grid: tuple[int, int], query: tuple[int, int]) -> np.ndarray:
    """``[*grid, RGB]``: the query orange, what it sees blue; of a pattern by heads, what its first head sees."""
    seen = parse(text).mask(grid)
    seen = (seen[0] if seen.ndim == 3 else seen)[np.ravel_multi_index(query, grid)].reshape(grid)
    squares = np.where(seen[..., None], SEEN, UNSEEN)
    squares[query] = SELF
    return squares


def draw(axes: Axes, squares: np.ndarray) -> None:
    axes.pcolormesh(squares, edgecolors="white", linewidth=0.6)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set_axis_off()


def of_query(text: str, grid: tuple[int, int], query: tuple[int, int]) -> Figure:
    """What one query sees."""
    drawing = Figure(figsize=(2.4, 2.4))
    draw(drawing.add_axes((0, 0, 1, 1)), colours(text, grid, query))
    return drawing


def of_mask(text: str, tokens: int) -> Figure:
    """The whole mask of a pattern over one axis: a row is a query, a column a key."""
    drawing = Figure(figsize=(3.2, 3.2))
    draw(drawing.add_axes((0, 0, 1, 1)), np.where(parse(text).mask(tokens)[..., None], SEEN, UNSEEN))
    return drawing


def row() -> Figure:
    """The README's: six patterns side by side."""
    drawing = Figure(figsize=(9.6, 1.95), dpi=110, facecolor="white")
    for axes, (name, text) in zip(drawing.subplots(1, len(PATTERNS)), PATTERNS.items(), strict=True):
        draw(axes, colours(text, GRID, QUERY))
        axes.set_title(name, fontsize=10, color="0.25")
    drawing.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.86, wspace=0.08)
    return drawing


def save(path: Path) -> None:
    buffer = BytesIO()
    row().savefig(buffer, format="png", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
