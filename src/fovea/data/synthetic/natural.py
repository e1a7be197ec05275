"""Images with the statistics of natural ones: clouds of 1/f amplitude, and dead leaves that hide one another.

Dead leaves (Lee, Mumford and Huang, IJCV 2001) have edges, flat places and objects of all sizes; networks that are
trained on them restore photographs (Achddou, Gousseau and Ladjal, SSVM 2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def image(size: int, seed: int | tuple[int, ...]) -> NDArray[np.uint8]:
    """``[size, size, 3]`` bytes: dead leaves three times out of four, else clouds; pure in ``seed``."""
    return leaves(size, seed) if np.random.default_rng(seed).random() < 0.75 else clouds(size, seed)


def clouds(size: int, seed: int | tuple[int, ...], exponent: float = 1.0) -> NDArray[np.uint8]:
    """``[size, size, 3]`` bytes: noise whose amplitude falls as ``1 / frequency ** exponent``; pure in ``seed``."""
    draw = np.random.default_rng(seed)
    planes = _falling(draw.normal(size=(3, size, size)), exponent)
    # Colours of natural scenes are alike: most of what varies, varies in all three.
    colours = np.tensordot(np.array([[1.0, 0.3, 0.1], [1.0, 0.0, -0.2], [1.0, -0.3, 0.1]]), planes, 1)
    return _bytes(draw.uniform(0.35, 0.65) + draw.uniform(0.1, 0.2) * np.moveaxis(colours, 0, -1))


def leaves(size: int, seed: int | tuple[int, ...], smallest: float = 4.0) -> NDArray[np.uint8]:
    """``[size, size, 3]`` bytes: ellipses and boxes that hide one another, each shaded and grained; pure in ``seed``.

    Args:
        smallest: radius in pixels; radii fall as ``radius ** -3`` up to half the image, which looks alike at any scale.
    """
    draw = np.random.default_rng(seed)
    fine = 2 * size  # drawn at twice the resolution and averaged, so that edges are smooth
    low, high = 2 * smallest, max(fine / 2, 2 * smallest + 1)
    image = np.broadcast_to(draw.uniform(0.1, 0.9, 3), (fine, fine, 3)).copy()
    grain = _falling(draw.normal(size=(1, fine, fine)), 0.5)[0, ..., None]
    for radius in _radii(fine, low, high, draw):
        row, column = draw.uniform(-radius, fine + radius, 2)
        top, left = (max(0, int(place - radius)) for place in (row, column))
        bottom, right = (min(fine, int(place + radius) + 2) for place in (row, column))
        rows, columns = np.ogrid[top:bottom, left:right]
        angle, slender = draw.uniform(0, np.pi), draw.uniform(0.3, 1)
        along = (np.cos(angle) * (columns - column) + np.sin(angle) * (rows - row)) / radius
        across = (np.cos(angle) * (rows - row) - np.sin(angle) * (columns - column)) / (radius * slender)
        box = draw.random() < 0.3
        inside = np.maximum(np.abs(along), np.abs(across)) < 0.7 if box else along**2 + across**2 < 1
        colour = draw.uniform(0, 1) + draw.normal(0, 0.15, 3)
        shade = (
            draw.uniform(-0.15, 0.15) * along + draw.choice([0.0, 0.0, 0.03, 0.08]) * grain[top:bottom, left:right, 0]
        )
        image[top:bottom, left:right][inside] = (colour + shade[..., None])[inside]
    return _bytes(image.reshape(size, 2, size, 2, 3).mean((1, 3)))


def _radii(size: int, low: float, high: float, draw: np.random.Generator) -> Floats:
    """Radii in random order, enough to cover the image some times: density ``r ** -3`` from ``low`` to ``high``."""
    mean_area = 2 * np.pi * np.log(high / low) / (low**-2 - high**-2) * 0.6
    count = int(np.clip(4 * (size + 2 * low) ** 2 / mean_area, 20, 4000))
    return (low**-2 - draw.random(count) * (low**-2 - high**-2)) ** -0.5


def _falling(noise: Floats, exponent: float) -> Floats:
    """Noise ``[..., size, size]`` with amplitudes divided by ``frequency ** exponent``, mean 0 and deviation 1."""
    size = noise.shape[-1]
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(noise) / frequency**exponent
    spectrum[..., 0, 0] = 0
    planes = np.fft.irfft2(spectrum, (size, size))
    return planes / np.maximum(planes.std((-2, -1), keepdims=True), 1e-9)


def _bytes(image: Floats) -> NDArray[np.uint8]:
    return (image.clip(0, 1) * 255).round().astype(np.uint8)
