"""Textures that repeat themselves: stripes, lattices, bricks and dots under a slight perspective, partly hidden.

What is hidden at one place can be seen at another, so a network that looks further restores more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def texture(size: int, seed: int | tuple[int, ...]) -> NDArray[np.uint8]:
    """``[size, size, 3]`` bytes: one to three layered patterns in flat colours; a pure function of ``seed``."""
    draw = np.random.default_rng(seed)
    image = np.broadcast_to(draw.uniform(0, 1, 3), (size, size, 3)).copy()
    for _ in range(int(draw.integers(1, 4))):
        u, v = _plane(size, draw)
        shape = _SHAPES[int(draw.integers(len(_SHAPES)))](u, v, draw)
        cover = shape * (_outline(size, draw) if draw.random() < 0.5 else 1.0)
        image += cover[..., None] * (draw.uniform(0, 1, 3) - image)
    shade = 1 + 0.3 * draw.uniform(-1, 1) * np.linspace(-1, 1, size)[:, None, None]
    noise = draw.normal(0, draw.choice([0.0, 0.01, 0.02]), (size, size, 1))
    return ((image * shade + noise).clip(0, 1) * 255).round().astype(np.uint8)


def _plane(size: int, draw: np.random.Generator) -> tuple[Floats, Floats]:
    """Coordinates on the texture's plane, in periods: turned, scaled and seen at a slant."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    angle = draw.uniform(0, np.pi)
    across = np.cos(angle) * columns + np.sin(angle) * rows
    along = np.cos(angle) * rows - np.sin(angle) * columns
    depth = 1 + draw.uniform(0, 0.4) * across / size
    period = np.exp(draw.uniform(np.log(4), np.log(24)))
    return across / depth / period + draw.uniform(), along / depth / period + draw.uniform()


def _edge(distance: Floats, sharpness: float = 8.0) -> Floats:
    """1 inside (distance above 0), 0 outside, about one pixel of slope in between."""
    return (distance * sharpness + 0.5).clip(0, 1)


def _phase(x: Floats) -> Floats:
    """Distance to the nearest whole number, 0 to 1/2."""
    return np.abs(x - np.round(x))


def _stripes(u: Floats, v: Floats, draw: np.random.Generator) -> Floats:
    return _edge(_phase(u) - draw.uniform(0.15, 0.35))


def _lattice(u: Floats, v: Floats, draw: np.random.Generator) -> Floats:
    return _edge(draw.uniform(0.08, 0.2) - np.minimum(_phase(u), _phase(v)))


def _bricks(u: Floats, v: Floats, draw: np.random.Generator) -> Floats:
    shifted = u / 2 + np.floor(v) / 2
    return _edge(np.minimum(2 * _phase(shifted), _phase(v)) - draw.uniform(0.05, 0.12))


def _dots(u: Floats, v: Floats, draw: np.random.Generator) -> Floats:
    return _edge(draw.uniform(0.2, 0.4) - np.hypot(_phase(u), _phase(v)))


def _checks(u: Floats, v: Floats, draw: np.random.Generator) -> Floats:
    return _edge((_phase(u / 2) - 0.25) * (_phase(v / 2) - 0.25) * 8, 4.0)


def _waves(u: Floats, v: Floats, draw: np.random.Generator) -> Floats:
    return 0.5 + 0.5 * np.sin(2 * np.pi * (u + draw.uniform(0.1, 0.5) * np.sin(np.pi * v)))


_SHAPES = (_stripes, _lattice, _bricks, _dots, _checks, _waves)


def _outline(size: int, draw: np.random.Generator) -> Floats:
    """A disc or a half plane that a layer is cut to."""
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    if draw.random() < 0.5:
        row, column = draw.uniform(0, size, 2)
        return _edge(draw.uniform(0.2, 0.5) * size - np.hypot(rows - row, columns - column), 1.0)
    angle = draw.uniform(0, 2 * np.pi)
    distance = np.cos(angle) * (columns - size / 2) + np.sin(angle) * (rows - size / 2)
    return _edge(distance + draw.uniform(-0.3, 0.3) * size, 1.0)
