"""Training pairs drawn by ``(step, position)``: crops of images, or generated textures, degraded as the stage asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fovea.data.images import grey
from fovea.data.resize import imresize
from fovea.tasks.fit import Batch
from fovea.tasks.restoration.pictures import Levels, Pixels

AnyLevels = TypeVar("AnyLevels", NDArray[np.uint8], Levels)
Examples = Callable[[int, int], Batch]
"""``(step, position) -> {"low": [C, h, w], "high": [C, s h, s w]}``, images in [0, 1]; a pure function."""
Degrade = Callable[[Pixels, tuple[int, ...]], Levels]
"""``(image, seed) -> `` what the network is given for it."""
Draw = Callable[[int, tuple[int, ...]], Pixels]
"""``(side, seed) -> `` a generated image."""
Pairs = Sequence[tuple[Levels, Pixels]]
"""``(low, high)`` images ``[h, w, C]`` and ``[s h, s w, C]``; taking one may mean reading a file."""


class Crops:
    """A random crop of a random pair, flipped and transposed at random (each with probability one half).

    ``(step, position) -> {"low": [C, patch, patch], "high": [C, s patch, s patch]}``, floats in [0, 1].

    Args:
        pairs: what is cropped; each is as likely as any other.
        patch: side of the low image's crop.
        degrade: makes a new low crop from the high one every time, instead of cropping the pair's.
    """

    def __init__(self, pairs: Pairs, *, patch: int, scale: int, seed: int, degrade: Degrade | None = None) -> None:
        self.pairs, self.patch, self.scale, self.seed, self.degrade = pairs, patch, scale, seed, degrade

    def __call__(self, step: int, position: int) -> Batch:
        draw = np.random.default_rng((self.seed, step, position))
        low, high = self.pairs[int(draw.integers(len(self.pairs)))]
        patch, scale = self.patch, self.scale
        row, column = (int(draw.integers(size - patch + 1)) for size in low.shape[:2])
        turns = draw.integers(2, size=3)
        high = _turned(high[row * scale : (row + patch) * scale, column * scale : (column + patch) * scale], turns)
        if self.degrade is None:
            low = _turned(low[row : row + patch, column : column + patch], turns)
        else:
            low = self.degrade(high, (self.seed, step, position))
        return {"low": as_tensor(low), "high": as_tensor(high)}


class CleanCrops:
    """A random crop of a random clean image, flipped and transposed at random: ``{"high": [C, side, side]}``."""

    def __init__(self, images: Sequence[Pixels], *, side: int, seed: int) -> None:
        self.images, self.side, self.seed = images, side, seed

    def __call__(self, step: int, position: int) -> Batch:
        draw = np.random.default_rng((self.seed, step, position))
        image, side = self.images[int(draw.integers(len(self.images)))], self.side
        row, column = (int(draw.integers(size - side + 1)) for size in image.shape[:2])
        return {"high": as_tensor(_turned(image[row : row + side, column : column + side], draw.integers(2, size=3)))}


class Generated:
    """A generated image, another one every time, and what ``degrade`` makes of it.

    The image is drawn a little larger than the patch, so that no border shows in the smaller image.

    Args:
        draw: ``(side, seed) -> [side, side, 3]``, pure in the seed.
    """

    def __init__(self, draw: Draw, degrade: Degrade, *, patch: int, scale: int, seed: int, channels: int) -> None:
        self.draw, self.degrade = draw, degrade
        self.patch, self.scale, self.seed, self.channels = patch, scale, seed, channels

    def __call__(self, step: int, position: int) -> Batch:
        margin = 4
        seed = (self.seed, step, position)
        high = in_channels(self.draw((self.patch + 2 * margin) * self.scale, seed), self.channels)
        low = self.degrade(high, seed)[margin:-margin, margin:-margin]
        border = margin * self.scale
        return {"low": as_tensor(low), "high": as_tensor(high[border:-border, border:-border])}


class InTurn:
    """Several sources of examples, one after the other within each batch."""

    def __init__(self, *sources: Examples) -> None:
        self.sources = sources

    def __call__(self, step: int, position: int) -> Batch:
        return self.sources[(step + position) % len(self.sources)](step, position)


def _turned(image: AnyLevels, turns: NDArray[np.integer]) -> AnyLevels:
    """Flipped left to right, top to bottom, transposed: each where its flag is set."""
    if turns[0]:
        image = image[:, ::-1]
    if turns[1]:
        image = image[::-1]
    return image.swapaxes(0, 1) if turns[2] else image


def in_channels(image: Pixels, channels: int) -> Pixels:
    """An RGB image as it is, or grey ``[H, W, 1]``."""
    return image if image.shape[-1] == channels else as_pixels(grey(as_tensor(image)))


def resized(image: Levels, scale: float) -> Pixels:
    """The image enlarged or made smaller by bicubic interpolation (MATLAB's), rounded to bytes."""
    return as_pixels(imresize(as_tensor(image).double(), scale))


def as_tensor(image: Levels) -> Tensor:
    """``[H, W, C]`` levels of 255 to ``[C, H, W]`` floats, 1 for 255."""
    return torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0).float() / 255


def as_pixels(image: Tensor) -> Pixels:
    """``[C, H, W]`` floats, cut to [0, 1], to ``[H, W, C]`` bytes, rounded."""
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).cpu().numpy()
