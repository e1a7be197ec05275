"""Slices as pictures: grey, with the classes laid over in colours and their outlines drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fovea.data.scans import PALETTE

Pixels = NDArray[np.uint8]


def grey(image: NDArray[np.floating], *, enlarge: int = 1) -> Pixels:
    """A slice ``[H, W]`` in [0, 1] as ``[H, W, 3]`` bytes, between its 1st and 99th percentile."""
    low, high = np.percentile(image, [1, 99])
    shown = ((image - low) / max(float(high - low), 1e-6)).clip(0, 1)
    return _enlarged(np.repeat((shown * 255).round().astype(np.uint8)[..., None], 3, -1), enlarge)


def overlaid(
    image: NDArray[np.floating], labels: NDArray[np.uint8], *, enlarge: int = 1, strength: float = 0.3
) -> Pixels:
    """The slice with every class but the background in its colour, the outline full, the inside with ``strength``."""
    base = grey(image, enlarge=enlarge).astype(np.float64)
    classes = np.where(labels == 255, 0, labels).repeat(enlarge, 0).repeat(enlarge, 1)
    for number in np.unique(classes[classes > 0]):
        colour = np.array(PALETTE[1 + (int(number) - 1) % (len(PALETTE) - 1)], float)
        inside = classes == number
        weight = np.where(_inner(inside), strength, 1.0)[..., None]
        base = np.where(inside[..., None], base * (1 - weight) + colour * weight, base)
    return base.round().astype(np.uint8)


def most_to_see(truth: NDArray[np.uint8]) -> int:
    """The slice of ``[slices, H, W]`` with the most classes, of those the one with the most labelled pixels."""
    return max(range(len(truth)), key=lambda z: (len(np.unique(truth[z])), int((truth[z] > 0).sum())))


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose four neighbours are in the mask as well."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner


def _enlarged(picture: Pixels, factor: int) -> Pixels:
    return picture.repeat(factor, 0).repeat(factor, 1)
