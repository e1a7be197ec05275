"""Slices through a body with an organ and very small tumours of low contrast; every one with its label map.

What makes the task hard is what makes it hard in CT: the tumours are 2 to 6 pixels in radius and hardly darker than the
organ around them, noise is as strong as they are, vessels cross the organ (brighter, elongated), the shade drifts over
the picture, and spots that look like tumours lie outside of the organ, where they are none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from fovea.data.masks import depth_inside

Floats = NDArray[np.float32]
CLASSES = ("background", "organ", "tumour")
RADII = (2.0, 6.0)


def micro_tumours(size: int, seed: int | tuple[int, ...]) -> tuple[Floats, NDArray[np.uint8]]:
    """A slice in [0, 1] and its labels (0 background, 1 organ, 2 tumour), ``[size, size]``; pure in ``seed``."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    organ = _organ(rows, columns, draw)
    image = 0.35 + 0.07 * _drift(size, draw, size / 8)
    image += (0.14 + 0.04 * draw.uniform(-1, 1)) * _soft(organ)
    image += 0.12 * _vessels(rows, columns, draw) * (organ > 0)
    inside, outside = depth_inside(organ > 0), depth_inside(organ <= 0)
    contrast = draw.uniform(0.09, 0.15)
    tumours = np.zeros((size, size), bool)
    for _ in range(int(draw.integers(1, 6))):
        radius = draw.uniform(*RADII)
        spot = _spot(rows, columns, inside, tumours, radius, draw)
        if spot is not None:
            image -= contrast * _soft(spot)
            tumours |= spot > 0
    for _ in range(int(draw.integers(0, 4))):  # spots outside of the organ are no tumours
        spot = _spot(rows, columns, outside, tumours, draw.uniform(*RADII), draw)
        if spot is not None:
            image -= contrast * _soft(spot)
    grain = gaussian_filter(draw.normal(size=(size, size)), 0.6)
    image += 0.045 * grain / grain.std()
    labels = np.where(tumours, 2, (organ > 0).astype(np.uint8)).astype(np.uint8)
    return image.clip(0, 1).astype(np.float32), labels


def volume(slices: int, size: int, seed: int) -> tuple[Floats, NDArray[np.uint8]]:
    """A stack of such slices, ``[slices, size, size]``; neighbours are not alike."""
    stack = [micro_tumours(size, (seed, index)) for index in range(slices)]
    return np.stack([image for image, _ in stack]), np.stack([labels for _, labels in stack])


def _organ(rows: NDArray, columns: NDArray, draw: np.random.Generator) -> NDArray[np.float64]:
    """Distance to a wavy ellipse, in pixels or so, positive inside."""
    size = len(rows)
    row, column = size / 2 + draw.uniform(-0.08, 0.08, 2) * size
    angle = draw.uniform(0, np.pi)
    along = np.cos(angle) * (columns - column) + np.sin(angle) * (rows - row)
    across = np.cos(angle) * (rows - row) - np.sin(angle) * (columns - column)
    long, short = draw.uniform(0.3, 0.4) * size, draw.uniform(0.2, 0.3) * size
    around = np.arctan2(across / short, along / long)
    wave = sum(
        draw.uniform(0, 0.1) / order * np.cos(order * around + draw.uniform(0, 2 * np.pi)) for order in range(2, 6)
    )
    return (1 + wave - np.hypot(along / long, across / short)) * short


def _spot(
    rows: NDArray,
    columns: NDArray,
    inside: NDArray[np.float64],
    taken: NDArray[np.bool_],
    radius: float,
    draw: np.random.Generator,
) -> NDArray[np.float64] | None:
    """Distance to a roundish spot, positive in it; none where there is no room.

    Args:
        inside: distance to the border of the region that it must lie in.
        taken: where others are.
    """
    apart = depth_inside(~taken) if taken.any() else np.full(taken.shape, np.inf)
    border = np.minimum(np.minimum(rows, len(rows) - 1 - rows), np.minimum(columns, len(columns) - 1 - columns))
    free = np.argwhere((inside > 1.25 * radius + 2) & (border > radius + 1) & (apart > 1.25 * radius + 2))
    if not len(free):
        return None
    row, column = free[int(draw.integers(len(free)))] + draw.uniform(-0.5, 0.5, 2)
    squeeze = draw.uniform(0.8, 1.25)
    return radius - np.hypot((rows - row) * squeeze, (columns - column) / squeeze)


def _vessels(rows: NDArray, columns: NDArray, draw: np.random.Generator) -> NDArray[np.float64]:
    """Bright curved lines, one pixel or two wide."""
    size, found = len(rows), np.zeros_like(rows)
    for _ in range(int(draw.integers(1, 4))):
        angle, bend = draw.uniform(0, np.pi), draw.uniform(-1, 1) / size
        along = np.cos(angle) * (columns - size / 2) + np.sin(angle) * (rows - size / 2)
        across = np.cos(angle) * (rows - size / 2) - np.sin(angle) * (columns - size / 2)
        offset = across - draw.uniform(-0.25, 0.25) * size - bend * along**2
        found = np.maximum(found, np.exp(-np.square(offset / draw.uniform(0.7, 1.3))))
    return found


def _drift(size: int, draw: np.random.Generator, width: float) -> NDArray[np.float64]:
    """Slow shading of unit deviation."""
    smooth = gaussian_filter(draw.normal(size=(size, size)), width, mode="wrap")
    return smooth / smooth.std()


def _soft(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 inside, 0 outside, a slope of about two pixels between, as a scanner blurs edges."""
    return (distance / 2 + 0.5).clip(0, 1)
