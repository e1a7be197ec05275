"""Phantoms of brains in four MRI contrasts, with nested lesions of all sizes, noise and a bias field.

What makes the real thing hard is there: a lesion is told from tissue only by several contrasts together, its parts lie
inside each other, its size runs from a few voxels to a third of the brain, and brightness drifts across the volume.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]

CONTRASTS = ("flair", "t1ce", "t1", "t2")
# Mean brightness in the four contrasts.
FLUID, GREY, WHITE = (0.25, 0.20, 0.20, 1.00), (0.70, 0.50, 0.50, 0.65), (0.55, 0.70, 0.70, 0.45)
OEDEMA, NECROSIS, ENHANCING = (1.00, 0.45, 0.45, 0.85), (0.55, 0.30, 0.32, 0.95), (0.75, 1.15, 0.48, 0.70)


def phantom(size: tuple[int, int, int], seed: int | tuple[int, ...]) -> tuple[Floats, Labels]:
    """A brain without its skull, zeros around it; a pure function of ``seed``.

    Returns:
        ``image [4, *size]`` in the order of :data:`CONTRASTS`, and ``labels [*size]`` in the codes of BraTS: 1
        necrosis, 2 oedema, 4 enhancing. One to four lesions; the radius of the smallest is little more than a voxel.
    """
    draw = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij"))
    brain = _inside(places, draw.uniform(-0.05, 0.05, 3), draw.uniform(0.75, 0.92, 3), _bumps(size, 6, draw) * 0.08)
    tissue = _bumps(size, 3.5, draw) + 0.4 * _bumps(size, 8, draw)
    ventricle = _inside(places, draw.uniform(-0.1, 0.1, 3), draw.uniform(0.12, 0.3, 3), _bumps(size, 4, draw) * 0.3)
    image = np.empty((4, *size))
    image[:] = np.reshape(GREY, (4, 1, 1, 1))
    image[:, tissue > 0.15] = np.array(WHITE)[:, None]
    image[:, (tissue < -1.2) | ventricle] = np.array(FLUID)[:, None]

    labels = np.zeros(size, np.uint8)
    least, most = 1.3, 0.22 * min(size)
    for _ in range(int(draw.integers(1, 5))):
        radius = float(np.exp(draw.uniform(np.log(least), np.log(most))))  # voxels
        _grow(labels, brain, radius, draw)
    for code, brightness in ((2, OEDEMA), (1, NECROSIS), (4, ENHANCING)):
        inside = labels == code
        change = draw.normal(1, 0.06, 4)
        image[:, inside] = (np.array(brightness) * change)[:, None]
    image = ndimage.gaussian_filter(image, (0, 0.5, 0.5, 0.5))  # partial volumes
    drift = np.stack([np.exp(0.25 * _bumps(size, 0.45 * min(size), draw)) for _ in range(4)])
    image = image * drift + draw.normal(0, draw.uniform(0.03, 0.08), image.shape)
    image = np.where(brain, np.maximum(image, 0.01), 0) * draw.uniform(100, 2000, (4, 1, 1, 1))
    return image.astype(np.float32), labels


def _grow(labels: Labels, brain: NDArray[np.bool_], radius: float, draw: np.random.Generator) -> None:
    """Put one lesion into the brain: oedema around a core, the core's rim enhancing; small ones are core alone."""
    free = np.argwhere(ndimage.binary_erosion(brain, iterations=2) & (labels == 0))
    if not len(free):
        return
    centre = free[int(draw.integers(len(free)))]
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in labels.shape), indexing="ij")).astype(float)
    stretch = draw.uniform(0.8, 1.25, 3)
    stretch /= np.prod(stretch) ** (1 / 3)
    away = grid - centre.reshape(3, 1, 1, 1)
    distance = np.sqrt(np.square(away / stretch.reshape(3, 1, 1, 1)).sum(0))
    distance = distance / radius * (1 + 0.18 * _bumps(labels.shape, max(1.5, radius / 2), draw))
    core = draw.uniform(0.45, 0.75)
    rim = core * draw.uniform(0.45, 0.75) if radius > 3.5 else 0.0
    labels[brain & (distance < 1) & (labels == 0)] = 2
    labels[brain & (distance < core)] = 4
    labels[brain & (distance < rim)] = 1
    labels[tuple(centre)] = 1 if rim else 4


def _inside(
    places: NDArray[np.float64], centre: NDArray[np.float64], radii: NDArray[np.float64], bumps: NDArray[np.float64]
) -> NDArray[np.bool_]:
    shape = (3, 1, 1, 1)
    return np.sqrt(np.square((places - centre.reshape(shape)) / radii.reshape(shape)).sum(0)) + bumps < 1


def _bumps(size: tuple[int, ...], scale: float, draw: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise with mean 0 and deviation 1, its bumps ``scale`` voxels wide."""
    noise = ndimage.gaussian_filter(draw.normal(size=size), scale, mode="wrap")
    return (noise - noise.mean()) / max(float(noise.std()), 1e-12)
