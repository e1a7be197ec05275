"""Scenes to learn from and to test on: files of the user's, or generated fields."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from fovea.data.hyperspectral.features import Components, fit
from fovea.data.hyperspectral.scene import Scene, read_pair
from fovea.data.hyperspectral.splits import Split, disjoint_split, random_split
from fovea.data.synthetic import spectra
from fovea.errors import UserError
from fovea.tasks.spectral.config import Data, Kind, SpectralConfig

ALL = 100_000
"""Pixels of the whole scene that components are fitted to at most, evenly spaced."""


def labelled(config: SpectralConfig, data: Path | None, seed: int = 0) -> Scene:
    """A scene with labels: that of ``data`` (see ``read_pair``), or a generated one of that seed.

    Raises:
        UserError: what the files hold is no scene with labels, or the scene is smaller than a patch.
    """
    settings = config.data
    if data is None:
        scene = generated(settings, seed)
    else:
        scene = read_pair(data, settings.key, settings.label_key, settings.classes)
    fits(scene, config.patch)
    return noisy(scene, settings.noise, seed) if settings.noise else scene


def generated(settings: Data, seed: int) -> Scene:
    """Fields with spectra of the given difficulty's default."""
    size = (settings.side, settings.side)
    return spectra.scene(size, settings.kinds, settings.bands, settings.fields, seed=seed)


def fits(scene: Scene, patch: int) -> None:
    """Raise ``UserError`` where the scene is smaller than a patch."""
    if min(scene.size) < patch:
        raise UserError(
            f"{scene.name} has {scene.size[0]} x {scene.size[1]} pixels; it is smaller than a patch of {patch} x "
            f"{patch} (network.spatial_size)"
        )


def noisy(scene: Scene, amount: float, seed: int) -> Scene:
    """The scene with Gaussian noise of ``amount`` times each band's deviation."""
    cube = np.asarray(scene.cube, dtype=np.float32)
    deviation = cube.std((0, 1), dtype=np.float64).astype(np.float32)
    noise = np.random.default_rng([seed, 30]).standard_normal(cube.shape, dtype=np.float32)
    return replace(scene, cube=cube + np.float32(amount) * deviation * noise)


def split(config: SpectralConfig, scene: Scene, kind: Kind, seed: int) -> Split:
    """The pixels of one seed's training, validation and test."""
    assert scene.labels is not None
    how = config.split
    if kind == "random":
        return random_split(scene.labels, how.train, validation=how.validation, seed=seed)
    return disjoint_split(
        scene.labels,
        how.train,
        patch=config.patch,
        block=how.block,
        area=how.area,
        validation=how.validation,
        seed=seed,
    )


def components(config: SpectralConfig, scene: Scene, known: Split | None) -> Components:
    """Components fitted to the pixels learned from, or to the whole scene (``features.fit=all``, or none known)."""
    how = config.features
    if known is None or how.fit == "all":
        total = scene.size[0] * scene.size[1]
        places = np.arange(0, total, -(-total // ALL))
    else:
        places = known.known
    spectra_there = scene.pixels(places)
    return fit(spectra_there, config.network.in_channels, how.method, whiten=how.whiten, scaled=how.scaled)


def fingerprint(scene: Scene) -> str:
    """What tells whether two scenes have the same labels in the same places."""
    assert scene.labels is not None
    words = f"{scene.size}".encode() + np.ascontiguousarray(scene.labels).tobytes()
    return hashlib.sha256(words).hexdigest()[:16]
