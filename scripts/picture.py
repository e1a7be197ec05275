"""The picture of the README: what one query sees under six patterns."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fovea.patterns import parse
from fovea.patterns.draw import EDGE, INK, QUERY, SEEN, UNSEEN

GRID = (24, 24)
PLACE = (9, 3)
PATTERNS = {
    "window": "window:size=8",
    "shifted window": "window:size=8,shift=4",
    "halo": "halo:block=8,halo=3",
    "neighborhood": "neighborhood:window=9",
    "dilated": "neighborhood:window=7,dilation=3",
    "axial": "union(sliding:left=0x23,right=0x23; sliding:left=23x0,right=23x0)",
}


def png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def row() -> Figure:
    """Six patterns side by side."""
    figure = Figure(figsize=(9.6, 1.95), facecolor="white")
    for axes, (name, text) in zip(figure.subplots(1, len(PATTERNS)), PATTERNS.items(), strict=True):
        seen = parse(text).mask(GRID)[np.ravel_multi_index(PLACE, GRID)].reshape(GRID)
        squares = np.where(seen[..., None], to_rgb(SEEN), to_rgb(UNSEEN))
        squares[PLACE] = to_rgb(QUERY)
        axes.pcolormesh(squares, edgecolors=EDGE, linewidth=0.6)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(name, fontsize=10, color=INK)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.86, wspace=0.08)
    return figure


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(row()))
