"""Where images come from, to train on and to measure: the user's folders, photographs at hand, generated textures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fovea.data import folders, images
from fovea.data.images import list_images
from fovea.data.photographs import PHOTOGRAPHS, photograph
from fovea.data.synthetic import natural
from fovea.data.synthetic.textures import texture
from fovea.errors import UserError
from fovea.tasks.restoration import degradations
from fovea.tasks.restoration.config import RestorationConfig
from fovea.tasks.restoration.examples import (
    CleanCrops,
    Crops,
    Examples,
    Generated,
    InTurn,
    Pairs,
    as_pixels,
    as_tensor,
    in_channels,
    resized,
)
from fovea.tasks.restoration.pictures import Levels, Pixels

TEXTURES, TEXTURE = 6, 192
"""Number and side of the textures that are validated."""
HELD_OUT = 2**40
"""Seeds of textures that no training draws: trainings begin theirs with ``config.seed``."""


@dataclass(frozen=True)
class Pair:
    """An image as it is given, ``[h, w, C]`` in levels of 255, and as it should be, ``[s h, s w, C]`` bytes."""

    name: str
    low: Levels
    high: Pixels


class Folder(Sequence[tuple[Levels, Pixels]]):
    """The pairs of a user's folder, read when they are asked for; the last ones read stay in memory."""

    def __init__(self, folder: Path, config: RestorationConfig) -> None:
        self.files = folders.pairs(folder, config.scale)
        self.pair = lru_cache(maxsize=256)(lambda index: _read(self.files[index], config, index))
        self.config = config

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Levels, Pixels]:  # type: ignore[override]
        pair = self.pair(index)
        patch = self.config.data.patch
        if min(pair.low.shape[:2]) < patch:
            size = f"{pair.low.shape[1]} x {pair.low.shape[0]}"
            raise UserError(f"{pair.name} is {size} at the network's input, smaller than data.patch={patch}")
        return pair.low, pair.high


class CleanFolder(Sequence[Pixels]):
    """The clean images of a user's folder, read when they are asked for."""

    def __init__(self, folder: Path, config: RestorationConfig) -> None:
        self.files = list_images(folder)
        self.crop = config.data.crop

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pixels:  # type: ignore[override]
        image = as_pixels(images.read(self.files[index], 3).pixels)
        if min(image.shape[:2]) < self.crop:
            size = f"{image.shape[1]} x {image.shape[0]}"
            raise UserError(f"{self.files[index]} is {size}, smaller than data.crop={self.crop}")
        return image


def training(config: RestorationConfig, folder: Path | None) -> Examples:
    """Training examples from the user's folder, or from what ``config.data.source`` names.

    Low-resolution images are those of the whole images; noise and compression are made anew for every crop.
    """
    patch, scale, seed, channels = config.data.patch, config.scale, config.seed, config.network.in_chans

    def degrade(high: Pixels, seed: tuple[int, ...]) -> Levels:
        return degraded(high, config, seed)

    def crops(pairs: Pairs) -> Crops:
        return Crops(pairs, patch=patch, scale=scale, seed=seed, degrade=degrade if scale == 1 else None)

    if config.stage in ("real", "real-gan"):
        return CleanCrops(_clean(config, folder), side=config.data.crop, seed=seed)
    if folder is not None:
        return crops(Folder(folder, config))
    made: list[Examples] = []
    if config.data.source in ("photographs", "both"):
        pairs = (_photograph(name, config, 0) for name in PHOTOGRAPHS if name not in config.data.held_out)
        made.append(crops([(pair.low, pair.high) for pair in pairs]))
    if config.data.source in ("textures", "both"):
        made.append(Generated(texture, degrade, patch=patch, scale=scale, seed=seed, channels=channels))
    if config.data.source == "natural":
        made.append(Generated(natural.image, degrade, patch=patch, scale=scale, seed=seed, channels=channels))
    return made[0] if len(made) == 1 else InTurn(*made)


def validation(config: RestorationConfig) -> list[Pair]:
    """The images that training is validated on: the user's folder, or what is held out of the source."""
    if config.data.validation is not None:
        return list(evaluation(config, config.data.validation))
    if config.data.source == "textures":
        return [_texture(index, config) for index in range(TEXTURES)]
    return [_photograph(name, config, index) for index, name in enumerate(config.data.held_out)]


def evaluation(config: RestorationConfig, folder: Path) -> Iterator[Pair]:
    """The pairs of a folder, one at a time: as they lie there, or degraded here where it holds clean images alone."""
    for index, found in enumerate(folders.pairs(folder, config.scale)):
        yield _read(found, config, index)


def _clean(config: RestorationConfig, folder: Path | None) -> Sequence[Pixels]:
    if folder is not None:
        return CleanFolder(folder, config)
    found = (photograph(name) for name in PHOTOGRAPHS if name not in config.data.held_out)
    return [image for image in found if min(image.shape[:2]) >= config.data.crop]


def degraded(high: Pixels, config: RestorationConfig, seed: int | tuple[int, ...]) -> Levels:
    """What the stage's network is given for an image: made smaller, noisy (not rounded or cut), or compressed."""
    if config.stage == "denoise":
        return (high + np.random.default_rng(seed).normal(0, config.data.sigma, high.shape)).astype(np.float32)
    if config.stage == "jpeg":
        return compressed(high, config.data.quality)
    if config.stage in ("real", "real-gan"):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed if isinstance(seed, int) else 0)
            return as_pixels(degradations.degrade(as_tensor(high), config.scale))
    return resized(high, 1 / config.scale)


def compressed(image: Pixels, quality: int) -> Pixels:
    """The image after a JPEG file of that quality (Pillow's encoder, colour at half the resolution)."""
    from PIL import Image

    file = io.BytesIO()
    squeezed = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(squeezed).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file)).reshape(image.shape)


def trimmed(image: Pixels, multiple: int) -> Pixels:
    """The image without the rows and columns at the bottom and right that are too many for a multiple."""
    return image[: image.shape[0] // multiple * multiple, : image.shape[1] // multiple * multiple]


def _read(files: folders.Files, config: RestorationConfig, index: int) -> Pair:
    high = as_pixels(images.read(files.high, config.network.in_chans).pixels)
    if min(high.shape[:2]) < config.scale:
        raise UserError(f"{files.high} is {high.shape[1]} x {high.shape[0]}, too small for x{config.scale}")
    high = trimmed(high, config.scale)
    if files.low is None:
        return Pair(files.name, degraded(high, config, index), high)
    low = as_pixels(images.read(files.low, config.network.in_chans).pixels)
    wanted = tuple(size * config.scale for size in low.shape[:2])
    if high.shape[:2] != wanted:
        given, needed = (f"{size[1]} x {size[0]}" for size in (high.shape, wanted))
        raise UserError(f"{files.high} is {given}; {config.scale} times {files.low} is {needed}")
    return Pair(files.name, low, high)


def _photograph(name: str, config: RestorationConfig, seed: int) -> Pair:
    high = trimmed(in_channels(photograph(name), config.network.in_chans), config.scale)
    return Pair(name, degraded(high, config, seed), high)


def _texture(index: int, config: RestorationConfig) -> Pair:
    """Texture number ``index`` of those that no training sees."""
    high = in_channels(texture(TEXTURE, (HELD_OUT, index)), config.network.in_chans)
    return Pair(f"texture {index}", degraded(high, config, index), high)
