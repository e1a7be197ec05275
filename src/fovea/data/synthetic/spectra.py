"""Generated hyperspectral scenes: fields of crops and minerals, with the difficulties of real ones.

A pixel is a mixture of its own class and its neighbours', seen under uneven light through a noisy sensor::

    cube = light * (mixed abundances @ class spectra + what is peculiar to the field + planted rows) + noise

Classes come in families whose spectra are nearly alike; each field departs from its class in a smooth way of its own;
some classes are planted in rows, between which soil is seen. Everything is a pure function of the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fovea.data.hyperspectral.scene import Scene

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Difficulty:
    """How hard a scene is made.

    Attributes:
        families: groups of classes with related spectra.
        likeness: how close the spectra of a family are: 0 not at all, 1 the same.
        mixing: deviation, in pixels, of the Gaussian that mixes neighbours.
        fields: how much a field departs from its class, in units of the spread between classes.
        rows: strength of planted rows, likewise.
        light: how much the illumination varies over the scene, as a share.
        noise: deviation of the sensor's noise in units of each band's own; some bands have three times as much.
    """

    families: int = 3
    likeness: float = 0.8
    mixing: float = 0.8
    fields: float = 0.25
    rows: float = 0.3
    light: float = 0.15
    noise: float = 0.6


def scene(
    size: tuple[int, int] = (72, 72),
    classes: int = 8,
    bands: int = 96,
    fields: int = 48,
    *,
    seed: int = 0,
    difficulty: Difficulty | None = None,
) -> Scene:
    """A scene of fields, each of one class; the paths between them are unlabelled."""
    return spectra_on(field_map(size, classes, fields, seed), bands, seed=seed, difficulty=difficulty, name="fields")


def field_map(size: tuple[int, int], classes: int, fields: int, seed: int) -> Labels:
    """``[rows, columns]``: fields labelled 1 to ``classes``, every class in several of them, and 0 on
    the paths between."""
    generator = np.random.default_rng([seed, 10])
    centres = generator.random((max(fields, 2 * classes), 2)) * size
    kinds = generator.permutation(np.arange(len(centres)) % classes) + 1
    angle = generator.uniform(0, np.pi)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [[1.0], [1.7]]
    place = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 2)
    distance = np.abs((place[:, None] - centres[None]) @ turned.T).max(-1)  # in the larger of two coordinates: boxes
    nearest = distance.argmin(1).reshape(size)
    path = ndimage.maximum_filter(nearest, 2) != ndimage.minimum_filter(nearest, 2)
    return np.where(path, 0, kinds[nearest]).astype(np.int64)


def spectra_on(
    labels: Labels, bands: int, *, seed: int = 0, difficulty: Difficulty | None = None, name: str = "generated"
) -> Scene:
    """A scene whose pixels have spectra of the classes that ``labels`` names (0: soil and paths, left unlabelled)."""
    how = difficulty or Difficulty()
    generator = np.random.default_rng([seed, 11])
    classes = int(labels.max())
    spectra = class_spectra(classes + 1, bands, how, generator)  # the first is what lies between the fields
    spread = float(spectra.std(0).mean())

    abundance = np.stack(
        [ndimage.gaussian_filter((labels == k).astype(np.float64), how.mixing) for k in range(classes + 1)], -1
    )
    abundance /= abundance.sum(-1, keepdims=True)
    cube = abundance @ spectra

    field, count = _fields(labels)
    peculiar = how.fields * spread * _smooth(count + 1, bands, generator)
    cube += peculiar[field]
    cube += how.rows * _planted(labels, generator)[..., None] * (spectra[0] - spectra.mean(0))
    cube *= 1 + how.light * _clouds(labels.shape, generator)[..., None]

    deviation = how.noise * cube.std((0, 1)) * np.where(generator.random(bands) < 0.1, 3.0, 1.0)
    cube += deviation * generator.standard_normal(cube.shape)
    numbers = tuple(range(1, classes + 1))
    return Scene(name, cube.astype(np.float32), labels, tuple(f"class {k}" for k in numbers), numbers)


def class_spectra(count: int, bands: int, how: Difficulty, generator: np.random.Generator) -> Array:
    """``[count, bands]``: smooth curves between 0 and 1, those of a family alike."""
    families = _smooth(how.families, bands, generator)
    own = _smooth(count, bands, generator)
    curves = np.sqrt(how.likeness) * families[np.arange(count) % how.families] + np.sqrt(1 - how.likeness) * own
    return 0.45 + 0.12 * curves


def _smooth(count: int, bands: int, generator: np.random.Generator) -> Array:
    """Random curves of mean 0 and deviation 1 over the curve, with broad features and a few narrow ones."""
    curves = np.zeros((count, bands))
    for width, weight in ((bands / 4, 1.0), (bands / 16, 0.4)):
        wave = ndimage.gaussian_filter1d(generator.standard_normal((count, bands)), width, axis=1, mode="wrap")
        curves += weight * wave / wave.std(1, keepdims=True)
    curves -= curves.mean(1, keepdims=True)
    return curves / curves.std(1, keepdims=True)


def _fields(labels: Labels) -> tuple[Labels, int]:
    """Connected pieces of each class, numbered; 0 is what is unlabelled."""
    numbered, count = np.zeros(labels.shape, np.int64), 0
    for kind in range(1, int(labels.max()) + 1):
        pieces, found = cast("tuple[Labels, int]", ndimage.label(labels == kind))
        numbered[pieces > 0] = pieces[pieces > 0] + count
        count += found
    return numbered, count


def _planted(labels: Labels, generator: np.random.Generator) -> Array:
    """Waves across the fields of every other class, in a direction and of a period of the class's own."""
    waves = np.zeros(labels.shape)
    row, column = np.meshgrid(np.arange(labels.shape[0]), np.arange(labels.shape[1]), indexing="ij")
    for kind in range(1, int(labels.max()) + 1):
        angle, period = generator.uniform(0, np.pi), generator.uniform(2.2, 5)
        if kind % 2:
            wave = np.sin(2 * np.pi * (row * np.cos(angle) + column * np.sin(angle)) / period)
            waves[labels == kind] = wave[labels == kind]
    return waves


def _clouds(size: tuple[int, ...], generator: np.random.Generator) -> Array:
    """A smooth field of mean 0 and deviation 1."""
    field = ndimage.gaussian_filter(generator.standard_normal(size), max(size) / 8, mode="wrap")
    return (field - field.mean()) / field.std()
