"""One page that shows a run: pictures, tables, curves and the configuration in a single file that needs nothing else.

>>> page = Report("HAT x2", "Restores a photograph that it has never seen.")
>>> page.heading("Every image").table(["image", "PSNR"], [["coffee", 33.1]]).html().startswith("<!doctype html>")
True
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from fovea.tasks import configuration
from fovea.tasks.run import RunDirectory, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { --ink: #1a1c20; --soft: #626872; --line: #dfe2e8; --paper: #ffffff; --tint: #f4f6f9; --accent: #1f5fbf; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaee; --soft: #9aa1ad; --line: #343941; --paper: #15171b; --tint: #1d2025; --accent: #7fb0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .7rem; padding-top: .9rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; } .lead { color: var(--soft); margin: 0 0 1.4rem; }
.numbers { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.number { background: var(--tint); border-radius: .6rem; padding: .7rem 1rem; min-width: 8.5rem; flex: 1 1 8.5rem; }
.number b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; line-height: 1.25; }
.number span { color: var(--soft); font-size: .85rem; }
.number.accent b { color: var(--accent); }
.pictures { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(min(var(--least), 100%), 1fr)); }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; border-radius: .4rem; background: var(--tint); }
figure.pixels img { image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .3rem; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: .7rem 0; font-size: .93rem; }
.key i { display: inline-block; width: .9rem; height: .9rem; margin-right: .4rem; border-radius: .2rem;
  vertical-align: -.08rem; border: 1px solid var(--line); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { text-align: right; padding: .38rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 600; }
tr.strong td { font-weight: 650; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); } svg text { fill: var(--soft); }
pre { background: var(--tint); padding: .9rem 1rem; border-radius: .6rem; overflow-x: auto;
  font-size: .84rem; line-height: 1.45; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--soft); }
"""
COLOURS = ("#1f77d0", "#e0812c", "#3a9d5d", "#b04fc0")


class Report:
    """A page under construction; every method adds a part below the last and returns the report."""

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self.parts: list[str] = [f"<h1>{_text(title)}</h1>"]
        if lead:
            self.parts.append(f'<p class="lead">{_text(lead)}</p>')

    def heading(self, text: str) -> Report:
        return self._add(f"<h2>{_text(text)}</h2>")

    def paragraph(self, text: str) -> Report:
        return self._add(f"<p>{_text(text)}</p>")

    def numbers(self, values: Mapping[str, str], accent: str | None = None) -> Report:
        """Large figures with a label each; the one labelled ``accent`` stands out."""
        cells = (
            f'<div class="number{" accent" if label == accent else ""}"><b>{_text(value)}</b>'
            f"<span>{_text(label)}</span></div>"
            for label, value in values.items()
        )
        return self._add(f'<div class="numbers">{"".join(cells)}</div>')

    def pictures(self, pictures: Iterable[tuple[str, np.ndarray]], *, least: int = 240, pixels: bool = False) -> Report:
        """Images ``[H, W]`` or ``[H, W, 1 or 3]`` (bytes, or floats in [0, 1]) side by side, each at least ``least``
        pixels wide where the screen allows; ``pixels`` keeps their pixels square when enlarged."""
        figures = (
            f'<figure{" class=pixels" if pixels else ""}><img alt="{_text(caption)}" src="{_inline(image)}">'
            f"<figcaption>{_text(caption)}</figcaption></figure>"
            for caption, image in pictures
        )
        return self._add(f'<div class="pictures" style="--least: {least}px">{"".join(figures)}</div>')

    def key(self, colours: Mapping[str, Sequence[int]]) -> Report:
        """What colours in pictures mean: names and their red, green and blue (0 to 255), in a line that wraps."""
        entries = (
            f'<span><i style="background: rgb({", ".join(map(str, colour))})"></i>{_text(name)}</span>'
            for name, colour in colours.items()
        )
        return self._add(f'<div class="key">{"".join(entries)}</div>')

    def table(
        self, header: Sequence[str], rows: Iterable[Sequence[Any]], *, digits: int = 3, strong_last: bool = False
    ) -> Report:
        """A table; floats are shown with ``digits`` decimals, ``strong_last`` sets off the last row (a mean, say)."""
        lines = [[_cell(value, digits) for value in row] for row in rows]
        body = []
        for index, line in enumerate(lines):
            strong = ' class="strong"' if strong_last and index == len(lines) - 1 else ""
            body.append(f"<tr{strong}>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>")
        head = "".join(f"<th>{_text(name)}</th>" for name in header)
        return self._add(
            f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        )

    def curves(
        self,
        series: Mapping[str, Sequence[tuple[float, float]]],
        *,
        across: str = "step",
        up: str = "",
        levels: Mapping[str, float] | None = None,
    ) -> Report:
        """Lines through ``(x, y)`` points, drawn as SVG; ``levels`` are dashed horizontal lines with a name."""
        drawn = {name: points for name, points in series.items() if points}
        return self._add(_curves(drawn, across, up, levels or {})) if drawn else self

    def run(self, run: RunDirectory, config: Any) -> Report:
        """The configuration and the versions that made the run, folded away."""
        settings = yaml.safe_dump(configuration.to_dict(config), sort_keys=False, default_flow_style=None, width=100)
        made = (run.path / "versions.json").read_text() if (run.path / "versions.json").is_file() else ""
        self.heading("How it was made")
        self._add(f"<details><summary>Configuration</summary><pre>{_text(settings)}</pre></details>")
        return self._add(f"<details><summary>Versions and machine</summary><pre>{_text(made)}</pre></details>")

    def html(self) -> str:
        """The page as one string."""
        head = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{_text(self.title)}</title><style>{STYLE}</style></head><body>"
        )
        return head + "\n".join(self.parts) + "</body></html>\n"

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")

    def _add(self, part: str) -> Report:
        self.parts.append(part)
        return self


def drawn(figure: Figure) -> np.ndarray:
    """A matplotlib figure as an image for :meth:`Report.pictures`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _text(value: Any) -> str:
    return html.escape(str(value))


def _cell(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float | np.floating) else _text(value)


def _inline(image: np.ndarray) -> str:
    """The image as a ``data:`` address holding a PNG."""
    from PIL import Image

    if image.dtype != np.uint8:
        image = (np.clip(image, 0.0, 1.0) * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _curves(
    series: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, levels: Mapping[str, float]
) -> str:
    width, height, left, right, top, bottom = 720, 280, 58, 16, 14, 40
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points] + list(levels.values())
    (x0, x1), (y0, y1) = _range(xs), _range(ys)

    def at(x: float, y: float) -> tuple[float, float]:
        across_fraction, up_fraction = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return left + across_fraction * (width - left - right), height - bottom - up_fraction * (height - top - bottom)

    parts = [f'<svg viewBox="0 0 {width} {height + 22 * (len(series) > 1)}" role="img">']
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = y0 + fraction * (y1 - y0)
        _, row = at(x0, y)
        parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{row:.1f}" y2="{row:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{row + 4:.1f}" text-anchor="end">{y:.4g}</text>')
        column, _ = at(x0 + fraction * (x1 - x0), y0)
        label = f"{x0 + fraction * (x1 - x0):.4g}"
        parts.append(f'<text x="{column:.1f}" y="{height - bottom + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{width - right}" y="{height - 6}" text-anchor="end">{_text(across)}</text>')
    parts.append(f'<text x="{left}" y="{top - 3}">{_text(up)}</text>')
    for name, level in levels.items():
        (a, row), (b, _) = at(x0, level), at(x1, level)
        parts.append(
            f'<line x1="{a:.1f}" x2="{b:.1f}" y1="{row:.1f}" y2="{row:.1f}" stroke="#9aa1ad" stroke-dasharray="5 4"/>'
            f'<text x="{b:.1f}" y="{row - 5:.1f}" text-anchor="end">{_text(name)}</text>'
        )
    for index, (name, points) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
        )
        if len(points) <= 60:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in (at(*p) for p in points)
            ]
        if len(series) > 1:
            parts.append(
                f'<text x="{left + 170 * index}" y="{height + 14}" style="fill: {colour}">{_text(name)}</text>'
            )
    return "".join(parts) + "</svg>"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
