"""``fovea draw`` and ``fovea simulate``: patterns without tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fovea.cli import words
from fovea.cli.output import say, show, show_json
from fovea.errors import UsageError, UserError

if TYPE_CHECKING:
    from fovea.patterns.simulator import Simulation
    from fovea.systems.system import System

PICTURES = [".png", ".svg", ".pdf"]


def register(app: typer.Typer) -> None:
    app.command()(draw)
    app.command()(simulate)


def draw(
    pattern: words.PatternText,
    grid: words.GridText,
    query: Annotated[
        str | None, typer.Option(metavar="ROWxCOLUMN", help="Whose keys to show; the middle token if not given.")
    ] = None,
    tile: Annotated[
        str | None, typer.Option(help="In a picture: which tiles of this shape a kernel visits and masks, e.g. 8x8.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="In a picture: what is seen through so many layers.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", "-o", metavar="FILE", help="Write a picture: .png, .svg or .pdf."),
    ] = None,
) -> None:
    """Draw which keys a query sees: as text, or with -o into a file.

    \b
    Examples:
      fovea draw neighborhood:window=7x7,stride=4 --grid 32x32
      fovea draw causal --grid 64 -o causal.png
    """
    sizes = words.grid(grid)
    found = words.pattern(pattern, sizes)
    place = None if query is None else _query(query, sizes)
    tiles = None if tile is None else _tile("--tile", tile, sizes)
    if output is not None:
        words.writable(output, suffixes=PICTURES)
        from fovea.patterns.draw import draw as figure

        with words.usage():
            picture = figure(found, sizes, place, (tiles, tiles) if tiles is not None else None, depth=depth)
        picture.savefig(output, dpi=150)
        say(f"drawn: {output}")
        return
    for option, given in (("--tile", tiles is not None), ("--depth", depth > 1)):
        if given:
            raise UsageError(f"{option} shows in pictures only; name a file: -o pattern.png")
    from fovea.cli.sketch import sketch

    with words.usage():
        lines = sketch(found, sizes, place)
    for line in lines:
        print(line)


def draw_views(system: System, output: Path) -> None:
    """All patterns of a system, side by side in one picture."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    from fovea.patterns.draw import draw as figure

    if not system.views:
        raise UserError(f"{system.card.slug} looks with no fixed pattern; there is nothing to draw")
    pictures = []
    for view in system.views:
        drawn = figure(words.pattern(view.pattern), view.grid)
        drawn.suptitle(f"{view.name}\n{view.pattern}", fontsize=10)
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3])
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(p, ((0, height - len(p)), (0, 0), (0, 0)), constant_values=255) for p in pictures]
    imsave(output, np.concatenate(padded, axis=1))


def simulate(
    pattern: words.PatternText,
    grid: words.GridText,
    q_tile: Annotated[str, typer.Option("--q-tile", help="Tokens of a tile of queries: 16x16.")],
    kv_tile: Annotated[str, typer.Option("--kv-tile", help="Tokens of a tile of keys: 16x8.")],
    search: Annotated[bool, typer.Option("--search", help="Try other strides of a neighborhood as well.")] = False,
    json: words.Json = False,
) -> None:
    """How much of a pattern's saved work a kernel of such tiles can turn into saved time.

    \b
    Example:
      fovea simulate neighborhood:window=80x80,stride=16 --grid 256x256 --q-tile 16x16 --kv-tile 16x8
    """
    from fovea.patterns import GridPattern, Neighborhood, simulator

    sizes = words.grid(grid)
    found = words.pattern(pattern, sizes)
    if not isinstance(found, GridPattern):
        raise UsageError(
            f"{pattern!r} is no pattern on a grid; the simulator takes full, sliding, window, halo, neighborhood"
        )
    tiles = _tile("--q-tile", q_tile, sizes), _tile("--kv-tile", kv_tile, sizes)
    if not search:
        with words.usage():
            result = simulator.simulate(found, sizes, query_tile=tiles[0], key_tile=tiles[1])
        if json:
            show_json({"pattern": str(found), **_numbers(result)})
        else:
            print(result.explain())
        return
    if not isinstance(found, Neighborhood):
        raise UsageError(f"--search chooses the stride of a neighborhood; {pattern!r} is none")
    candidates = simulator.search(found, sizes, [tiles])
    if json:
        show_json([{"pattern": str(c.pattern), **_numbers(c.simulation)} for c in candidates])
        return
    from fovea.cli.output import show_table

    rows = [
        (
            str(c.pattern),
            f"{c.simulation.predicted_speedup():.2f}x",
            f"{c.simulation.flop_bound:.2f}x",
            f"{c.simulation.worst_tile_bound:.2f}x",
            f"{c.simulation.partial / c.simulation.tiles:.0%}",
        )
        for c in candidates[:20]
    ]
    columns = ("pattern", "predicted", "by operations", "by busiest tile", "masked tiles")
    show_table(columns, rows, right=columns[1:])
    if len(candidates) > len(rows):
        show(f"and {len(candidates) - len(rows)} more; --json lists all")


def _numbers(result: Simulation) -> dict[str, float | bool | list[int]]:
    return {
        "query_tile": list(result.query_tile),
        "key_tile": list(result.key_tile),
        "flop_bound": result.flop_bound,
        "tile_bound": result.tile_bound,
        "worst_tile_bound": result.worst_tile_bound,
        "worst_token_bound": result.worst_token_bound,
        "tiles": result.tiles,
        "partial_tiles": result.partial,
        "block_sparse": result.block_sparse,
        "waste": result.waste,
        "predicted_speedup": result.predicted_speedup(),
    }


def _query(text: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    parts = text.replace(",", "x").split("x")
    place = tuple(int(part) for part in parts) if all(part.strip().isdigit() for part in parts) else ()
    if len(place) != len(sizes) or any(at >= size for at, size in zip(place, sizes, strict=True)):
        last = "x".join(str(size - 1) for size in sizes)
        raise UsageError(
            f"--query {text!r} is no token of this grid; they go from {'x'.join('0' * len(sizes))} to {last}"
        )
    return place


def _tile(option: str, text: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    tile = words.grid(text, option)
    if len(tile) != len(sizes):
        raise UsageError(f"{option} {text!r} has {len(tile)} axes; the grid has {len(sizes)}")
    return tile
