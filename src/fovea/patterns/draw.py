"""The picture of a pattern: what a query sees on its grid, or the whole mask of a sequence, and how tiles fall on it.

One room: grids and sequences share the scene, the colours and the legend, and differ only in what a cell stands for.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import groupby
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fovea.patterns.compose import PerHead, Union
from fovea.patterns.neighbors import seen_keys
from fovea.patterns.order import Permutation
from fovea.patterns.pattern import Grid, GridPattern, Pattern, as_grid, as_grids
from fovea.patterns.reach import receptive_field
from fovea.patterns.spans import BoolArray, IntArray
from fovea.patterns.states import FULL, PARTIAL, States, block_states, dilation_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours after Okabe and Ito, told apart by people with any colour vision and in print.
UNSEEN, SEEN, QUERY, ZERO = "#ECECEC", "#56B4E9", "#E69F00", "#CC79A7"
FULL_TILE, PARTIAL_TILE = "#0072B2", "#D55E00"
EDGE, INK = "#FFFFFF", "#333333"
TEXT_LINE = 0.2
"""Height of a line of text, in inches."""
MOST_CELLS = 512
MOST_SLICES = 8


def draw(
    pattern: Pattern,
    grid: int | Grid,
    query: int | tuple[int, ...] | None = None,
    tiles: tuple[int | Grid, int | Grid] | None = None,
    *,
    key_grid: int | Grid | None = None,
    depth: int = 1,
) -> Figure:
    """Draw a pattern.

    On grids of two and three axes: the keys that one query sees, zero keys around the grid included; in three, slice by
    slice. On sequences: the whole mask, queries downwards and keys to the right, and the query's row marked.

    Args:
        pattern: a pattern by heads gets a picture for each of its different heads.
        grid: of the queries.
        query: coordinates; the middle of the grid if not given (on sequences: none).
        tiles: ``(query tile, key tile)``: mark the key tiles that a tiled kernel visits for the query's tile (on
            sequences: for all tiles), and which of them need no mask.
        key_grid: of the keys, if not the queries'.
        depth: through so many layers: tokens are coloured by the layer in which they are first seen.

    Returns a matplotlib figure that no window manager knows; ``figure.savefig(path)`` writes it.
    """
    query_grid, key_grid = as_grids(grid, key_grid)
    pattern.check(query_grid, key_grid)
    query = (query,) if isinstance(query, int) else query
    if query is None and (len(query_grid) > 1 or depth > 1):
        query = tuple(n // 2 for n in query_grid)
    if depth > 1 and query_grid != key_grid:
        raise ValueError(f"depth={depth} needs queries and keys on one grid; they have {query_grid} and {key_grid}")
    if depth > 1 and tiles is not None:
        raise ValueError("depth and tiles cannot be drawn in one picture; give one of them")
    heads = _heads(pattern)
    scenes = [_Scene(part, query_grid, key_grid, query, _tile_pair(tiles, query_grid), depth) for part, _ in heads]
    figure, panels = _figure(pattern, scenes, [label for _, label in heads])
    handles: dict[str, Any] = {}
    for scene, axes in zip(scenes, panels, strict=True):
        if len(query_grid) == 1 and depth == 1:
            handles |= _draw_mask(axes[0], scene)
        else:
            handles |= _draw_grid(axes, scene)
    order = [label for label in LABELS if label in handles] + [label for label in handles if label not in LABELS]
    figure.legend(
        [handles[label] for label in order],
        order,
        loc="outside lower center",
        ncols=min(4, len(order)),
        frameon=False,
        fontsize=8,
        handlelength=1.4,
        columnspacing=1.6,
    )
    return figure


LABELS = (
    "query",
    "key seen",
    "zero key seen",
    "not seen",
    "tile of the query",
    "tile: full, no mask",
    "tile: partial, masked",
    "computed in vain",
    "not visited",
)


@dataclass(frozen=True)
class _Scene:
    """What one picture shows."""

    pattern: Pattern
    query_grid: Grid
    key_grid: Grid
    query: Grid | None
    tiles: tuple[Grid, Grid] | None
    depth: int

    @property
    def before(self) -> Grid:
        return tuple(before for before, _ in self.pattern.padding(self.query_grid, self.key_grid))

    @property
    def padded_grid(self) -> Grid:
        padding = self.pattern.padding(self.query_grid, self.key_grid)
        return tuple(before + size + after for size, (before, after) in zip(self.key_grid, padding, strict=True))

    @property
    def standing(self) -> Grid | None:
        """Where the query stands among the padded keys."""
        if self.query is None:
            return None
        part = self.pattern
        while isinstance(part, Union):
            part = part.parts[0]
        if isinstance(part, GridPattern):
            spans = part.spans(self.query_grid, self.key_grid)
            return tuple(int(s.padded().position[q]) for s, q in zip(spans, self.query, strict=True))
        return (self.query[0] + self.key_grid[0] - self.query_grid[0],)

    def real(self) -> BoolArray:
        real = np.zeros(self.padded_grid, np.bool_)
        real[tuple(slice(b, b + n) for b, n in zip(self.before, self.key_grid, strict=True))] = True
        return real


def _heads(pattern: Pattern) -> list[tuple[Pattern, str]]:
    """The different parts of a pattern by heads, each with the heads it is for."""
    if not isinstance(pattern, PerHead):
        return [(pattern, "")]
    labels = []
    for part in dict.fromkeys(pattern.parts):
        heads = [h for h, other in enumerate(pattern.parts) if other == part]
        runs = [[h for _, h in run] for _, run in groupby(enumerate(heads), key=lambda pair: pair[1] - pair[0])]
        text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
        labels.append((part, f"head{'s' if len(heads) > 1 else ''} {text}: {part}"))
    return labels


def _tile_pair(tiles: tuple[int | Grid, int | Grid] | None, grid: Grid) -> tuple[Grid, Grid] | None:
    if tiles is None:
        return None
    query, key = as_grid(tiles[0], "tiles[0]"), as_grid(tiles[1], "tiles[1]")
    if len(query) != len(grid) or len(key) != len(grid):
        raise ValueError(f"tiles={tiles}; both tiles must have a number for each axis of the grid {grid}")
    return query, key


def _figure(pattern: Pattern, scenes: list[_Scene], labels: list[str]) -> tuple[Figure, list[list[Axes]]]:
    """The figure with its title and, for each scene, its panels: one, or one a slice."""
    from matplotlib.figure import Figure

    grid = scenes[0].padded_grid
    slices = _slices(scenes[0]) if len(grid) == 3 else [0]
    rows = 1 if len(grid) < 3 else len(scenes)
    columns = len(slices) if len(grid) == 3 else len(scenes)
    per_row = min(columns, 4)
    lines = ceil(columns / per_row)
    high, wide = (scenes[0].query_grid[0], *grid)[-2:]
    if len(grid) == 1 and scenes[0].depth > 1:
        wide, high = max(grid[0], 1), max(grid[0] / 8, 1)
    side = 4.6 if columns == 1 else 3.4 if columns < 4 else 2.4
    aspect = min(max(high / max(wide, 1), 0.15), 2.0)
    width, height = max(side * per_row + 0.7, 5.2), max(side * aspect * lines * rows + 1.3, 1.9)
    title = textwrap.wrap(str(pattern), int(width * 11), break_on_hyphens=False)
    texts = [textwrap.wrap(label, max(24, int(side * 14)), break_on_hyphens=False) for label in labels]
    height += TEXT_LINE * (len(title) - 1 + rows * lines * max(map(len, texts)))
    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    figure.suptitle("\n".join(title), fontsize=10, fontfamily="monospace", color=INK)
    axes = figure.subplots(rows * lines, per_row, squeeze=False)
    panels: list[list[Axes]] = []
    for scene, text in enumerate(texts):
        chosen = list(axes[scene * lines : (scene + 1) * lines].ravel())
        chosen = chosen if len(grid) == 3 else [axes.ravel()[scene]]
        if text:
            chosen[0].set_title("\n".join(text), fontsize=8, loc="left", color=INK)
        panels.append(chosen)
    for axis in axes.ravel():
        axis.set_visible(False)
    return figure, panels


def _slices(scene: _Scene) -> list[int]:
    """Which slices of the first axis are drawn: those that the query sees, thinned out evenly where they are many."""
    size = scene.padded_grid[0]
    if size <= MOST_SLICES:
        return list(range(size))
    assert scene.query is not None and scene.standing is not None
    shown = np.flatnonzero(_depths(scene).reshape(size, -1).max(-1) >= 0)
    if len(shown) > MOST_SLICES:
        shown = shown[np.unique(np.linspace(0, len(shown) - 1, MOST_SLICES).round().astype(int))]
        nearest = int(np.abs(shown - scene.standing[0]).argmin())
        shown[nearest] = scene.standing[0]
    return sorted({int(s) for s in shown})


def _depths(scene: _Scene) -> IntArray:
    """``[*padded keys]``: the layer in which a key is first seen, the last one first; -1 never. With one layer 1 or
    -1."""
    assert scene.query is not None
    if scene.depth > 1:
        field = receptive_field(scene.pattern, scene.query_grid, scene.query, scene.depth).depths
        out = np.full(scene.padded_grid, -1, np.int64)
        out[scene.real()] = field.ravel()
        return out
    seen = seen_keys(scene.pattern, scene.query, scene.query_grid, scene.key_grid)
    return np.where(seen, 1, -1)


def _rgb(colour: str) -> Any:
    from matplotlib.colors import to_rgb

    return np.array(to_rgb(colour))


def _patch(colour: Any, **kwargs: Any) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, **({"edgecolor": "#999999", "linewidth": 0.5} | kwargs))


def _frame(colour: str, style: Any = "-") -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor="none", edgecolor=colour, linewidth=1.8, linestyle=style)


def _shades(depth: int) -> list[Any]:
    """A colour for each layer, from dark near the query to light."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    return [np.array(colours(0.12 + 0.8 * layer / max(depth - 1, 1))[:3]) for layer in range(depth)]


def _draw_grid(panels: list[Axes], scene: _Scene) -> dict[str, Any]:
    """What the query sees, on a grid of any number of axes: one panel, or one a slice of the first axis."""
    depths, real = _depths(scene), scene.real()
    image = np.empty((*scene.padded_grid, 3))
    image[:] = _rgb(UNSEEN)
    image[~real] = 1.0
    handles: dict[str, Any] = {}
    if (real & (depths < 0)).any():
        handles["not seen"] = _patch(UNSEEN)
    if scene.depth > 1:
        for layer, shade in enumerate(_shades(scene.depth), start=1):
            if (depths == layer).any():
                image[depths == layer] = shade
                handles["layer 1" if layer == 1 else f"layer {layer}"] = _patch(tuple(shade))
    else:
        image[real & (depths > 0)] = _rgb(SEEN)
        handles["key seen"] = _patch(SEEN)
        if (~real & (depths > 0)).any():
            image[~real & (depths > 0)] = _rgb(ZERO)
            handles["zero key seen"] = _patch(ZERO)
    assert scene.standing is not None
    image[scene.standing] = _rgb(QUERY)
    handles["query"] = _patch(QUERY)
    classes = _tile_classes(scene)
    flat = len(scene.padded_grid) == 3
    slices = _slices(scene) if flat else [None]
    for axis, part in zip(panels, slices, strict=False):
        plane = image if part is None else image[part]
        plane = plane[None] if plane.ndim == 2 else plane
        _show(axis, plane, scene)
        if part is not None:
            _slice_title(axis, scene, part)
        if classes is not None:
            handles |= _draw_tiles(axis, scene, classes, part)
    return handles


def _slice_title(axis: Axes, scene: _Scene, part: int) -> None:
    assert scene.standing is not None
    number = part - scene.before[0]
    text = f"slice {number}" + (" (zeros)" if not 0 <= number < scene.key_grid[0] else "")
    above = axis.get_title(loc="left")
    weight = "bold" if part == scene.standing[0] else "normal"
    axis.set_title(text, fontsize=8, color=INK, weight=weight, loc="right" if above else "center")


def _show(axis: Axes, plane: Any, scene: _Scene) -> None:
    """An image of cells whose ticks are grid coordinates."""
    axis.set_visible(True)
    top, left = (0, *scene.before)[-2:]
    rows, columns = plane.shape[:2]
    extent = (-left - 0.5, columns - left - 0.5, rows - top - 0.5, -top - 0.5)
    axis.imshow(plane, extent=extent, interpolation="nearest")
    if max(rows, columns) <= 48:
        axis.set_xticks(np.arange(-left, columns - left + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(-top, rows - top + 1) - 0.5, minor=True)
        axis.grid(which="minor", color=EDGE, linewidth=0.6 if max(rows, columns) <= 32 else 0.3)
    _ticks(axis)
    if rows == 1:
        axis.set_yticks([])
        axis.set_aspect("auto")


def _ticks(axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 4, 5, 8, 10]))
    axis.tick_params(which="both", length=0, labelsize=7, colors=INK)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _tile_classes(scene: _Scene) -> tuple[Permutation, Permutation, int, States] | None:
    """Orders of queries and keys, the query's tile, and the states of its key tiles."""
    if scene.tiles is None or scene.query is None:
        return None
    dilation = dilation_of(scene.pattern, scene.query_grid, scene.key_grid)
    queries = Permutation(scene.query_grid, scene.tiles[0], dilation)
    keys = Permutation(scene.padded_grid, scene.tiles[1], dilation)
    states = block_states(
        scene.pattern, scene.query_grid, scene.key_grid, query_tile=scene.tiles[0], key_tile=scene.tiles[1]
    )
    token = int(np.ravel_multi_index(scene.query, scene.query_grid))
    tile = int(queries.inverse[token]) // prod(queries.tile)
    return queries, keys, tile, states[tile]


def _draw_tiles(
    axis: Axes, scene: _Scene, classes: tuple[Permutation, Permutation, int, States], part: int | None
) -> dict[str, Any]:
    from matplotlib.patches import Rectangle

    queries, keys, tile, states = classes
    handles: dict[str, Any] = {}
    styles = {
        FULL: ("tile: full, no mask", FULL_TILE, "-"),
        PARTIAL: ("tile: partial, masked", PARTIAL_TILE, (0, (2.5, 1.2))),
    }
    pieces = keys.pieces()

    def outline(low: IntArray, high: IntArray, step: Grid, colour: str, style: Any, inner: bool = False) -> bool:
        if part is not None and not (low[0] <= part <= high[0] and (part - low[0]) % step[0] == 0):
            return False
        y, x = low[-2] - scene.before[-2], low[-1] - scene.before[-1]
        h, w = high[-2] - low[-2] + 1, high[-1] - low[-1] + 1
        inset = max(0.18, 0.08 * min(h, w)) if inner else 0.06
        axis.add_patch(
            Rectangle(
                (x - 0.5 + inset, y - 0.5 + inset),
                w - 2 * inset,
                h - 2 * inset,
                fill=False,
                edgecolor=colour,
                linewidth=1.1 if inner else 1.5,
                linestyle=style,
                clip_on=False,
            )
        )
        return True

    for state, (label, colour, style) in styles.items():
        for number in np.flatnonzero(states == state):
            low, high = pieces.low[number, 0], pieces.high[number, 0]
            if outline(low, high, keys.dilation, colour, style):
                handles[label] = _frame(colour, style)
    piece = queries.pieces()
    if scene.query_grid == scene.key_grid:
        shifted = np.asarray(scene.before)
        low, high = piece.low[tile, 0] + shifted, piece.high[tile, 0] + shifted
        if outline(low, high, queries.dilation, INK, "-", inner=True):
            handles["tile of the query"] = _frame(INK)
    return handles


def _draw_mask(axis: Axes, scene: _Scene) -> dict[str, Any]:
    """The mask of a sequence: queries downwards, keys to the right."""
    axis.set_visible(True)
    queries, keys, before = scene.query_grid[0], scene.padded_grid[0], scene.before[0]
    extent = (-before - 0.5, keys - before - 0.5, queries - 0.5, -0.5)
    handles: dict[str, Any] = {}
    small = max(queries, keys) <= MOST_CELLS
    if small:
        mask = scene.pattern.mask(scene.query_grid, scene.key_grid)
        image = np.where(mask[..., None], _rgb(SEEN), _rgb(UNSEEN))
        zero = ~scene.real()
        image[:, zero] = np.where(mask[:, zero, None], _rgb(ZERO), 1.0)
        handles |= {"key seen": _patch(SEEN)}
        if not mask[:, ~zero].all():
            handles["not seen"] = _patch(UNSEEN)
        if mask[:, zero].any():
            handles["zero key seen"] = _patch(ZERO)
    else:
        image = np.empty((1, 1, 3))
        image[:] = _rgb(UNSEEN)
    if scene.tiles is not None or not small:
        tile = -(-max(queries, keys) // 256)
        query_tile, key_tile = (scene.tiles[0][0], scene.tiles[1][0]) if scene.tiles else (tile, tile)
        states = block_states(
            scene.pattern, scene.query_grid, scene.key_grid, query_block=query_tile, key_block=key_tile
        )
        image = _tint(image, states, (query_tile, key_tile), (queries, keys), small)
        handles |= _tile_handles(states)
        handles.pop("key seen", None)
        if small and (states == PARTIAL).any():
            handles["computed in vain"] = _patch(tuple(0.72 + 0.28 * _rgb(PARTIAL_TILE)))
        if (states == 0).any():
            handles.pop("not seen", None)
            handles["not visited"] = _patch(UNSEEN)
    axis.imshow(image, extent=extent, interpolation="nearest", aspect="equal")
    if small and max(queries, keys) <= 48:
        axis.set_xticks(np.arange(-before, keys - before + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(queries + 1) - 0.5, minor=True)
        axis.grid(which="minor", color=EDGE, linewidth=0.5)
    if scene.tiles is not None and max(queries / scene.tiles[0][0], keys / scene.tiles[1][0]) <= 64:
        for at in range(0, queries + 1, scene.tiles[0][0]):
            axis.axhline(at - 0.5, color=INK, linewidth=0.5)
        for at in range(0, keys + 1, scene.tiles[1][0]):
            axis.axvline(at - before - 0.5, color=INK, linewidth=0.5)
    _ticks(axis)
    axis.set_xlabel("key", fontsize=8, color=INK)
    axis.set_ylabel("query", fontsize=8, color=INK)
    if scene.query is not None:
        from matplotlib.patches import Rectangle

        thick = max(1.0, queries / 128)
        row = (-before - 0.5, scene.query[0] + 0.5 - thick / 2 - 0.5)
        axis.add_patch(Rectangle(row, keys, thick, fill=False, edgecolor=QUERY, linewidth=1.8, clip_on=False))
        handles["query"] = _frame(QUERY)
    return handles


def _tint(image: Any, states: States, tile: tuple[int, int], size: tuple[int, int], small: bool) -> Any:
    """Colour the tiles by class; where single tokens are shown, unseen pairs of a visited tile get a lighter tint."""
    colours = {FULL: _rgb(FULL_TILE), PARTIAL: _rgb(PARTIAL_TILE)}
    if not small:
        tinted = np.empty((*states.shape, 3))
        tinted[:] = _rgb(UNSEEN)
        for state, colour in colours.items():
            tinted[states == state] = colour
        return tinted
    by_token = states.repeat(tile[0], 0)[: size[0]].repeat(tile[1], 1)[:, : size[1]]
    seen = (image == _rgb(SEEN)).all(-1)
    for state, colour in colours.items():
        image[seen & (by_token == state)] = colour
        image[~seen & (by_token == state) & (image == _rgb(UNSEEN)).all(-1)] = 0.72 + 0.28 * colour
    return image


def _tile_handles(states: States) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    if (states == FULL).any():
        handles["tile: full, no mask"] = _patch(FULL_TILE)
    if (states == PARTIAL).any():
        handles["tile: partial, masked"] = _patch(PARTIAL_TILE)
    return handles
