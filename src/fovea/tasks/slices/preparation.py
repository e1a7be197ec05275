"""What happens to slices on their way to the network and to predictions on their way back; augmentation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from fovea.data.slice_folders import Kind
from fovea.models.hbformer import three_channels
from fovea.tasks.slices.config import Data

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]

LEAST = 32
"""Smallest side that the network takes."""


def resolved(data: Data, kind: Kind, modality: str) -> Data:
    """With what ``auto`` means for a layout: the window for CT in NIfTI, percentiles for other NIfTI, else the unit."""
    if data.intensity != "auto":
        return data
    nifti = kind in ("lits-nifti", "msd")
    return replace(data, intensity=("window" if modality == "ct" else "percentiles") if nifti else "unit")


def scaled(image: Floats, data: Data) -> Floats:
    """Voxels in [0, 1] by the rule of ``data.intensity``; ``unit`` leaves them as they are."""
    if data.intensity in ("auto", "unit"):
        return image
    low, high = (data.low, data.high) if data.intensity == "window" else np.percentile(image, [0.5, 99.5])
    return ((image - low) / max(float(high - low), 1e-12)).clip(0, 1).astype(np.float32)


def augmented(image: Floats, labels: Labels, draw: np.random.Generator) -> tuple[Floats, Labels]:
    """As TransUNet does it: half of the slices turned by right angles and flipped along one axis; else half of the rest
    turned by -20 to 19 degrees, nearest neighbours, zeros at the corners."""
    if draw.random() < 0.5:
        turns, axis = int(draw.integers(4)), int(draw.integers(2))
        return np.flip(np.rot90(image, turns), axis), np.flip(np.rot90(labels, turns), axis)
    if draw.random() < 0.5:
        angle = int(draw.integers(-20, 20))
        turned = (ndimage.rotate(array, angle, order=0, reshape=False) for array in (image, labels))
        return tuple(turned)  # type: ignore[return-value]
    return image, labels


def fitted(image: Floats, labels: Labels, data: Data, draw: np.random.Generator) -> tuple[Floats, Labels]:
    """A training pair of ``data.size`` pixels a side; what ``pad`` has to cut is cut at random."""
    if data.fit == "zoom":
        return zoomed(image, (data.size, data.size), 3), zoomed(labels, (data.size, data.size), 0)
    start = [int(draw.integers(max(0, length - data.size) + 1)) for length in image.shape]
    cut = tuple(slice(first, first + data.size) for first in start)
    return padded(image[cut], data.size)[0], padded(labels[cut], data.size)[0]


def zoomed(array: NDArray[Any], size: tuple[int, ...], order: int) -> NDArray[Any]:
    """Resized by splines of ``order``: 3 for images, 0 for labels."""
    if array.shape == size:
        return array
    factors = [wanted / given for wanted, given in zip(size, array.shape, strict=True)]
    return np.asarray(ndimage.zoom(array, factors, order=order))


def padded(array: NDArray[Any], least: int) -> tuple[NDArray[Any], tuple[slice, ...]]:
    """Zeros around the last two axes up to ``least`` pixels, and where the array is in it."""
    before = [max(0, least - length) // 2 for length in array.shape[-2:]]
    widths = [(first, max(0, least - length) - first) for first, length in zip(before, array.shape[-2:], strict=True)]
    inside = tuple(slice(first, first + length) for first, length in zip(before, array.shape[-2:], strict=True))
    return np.pad(array, [(0, 0)] * (array.ndim - 2) + widths), inside


def as_input(image: Floats) -> torch.Tensor:
    """``[*slices, H, W]`` in [0, 1] to the network's three channels, ``[*slices, 3, H, W]``."""
    return three_channels(torch.from_numpy(np.ascontiguousarray(image, np.float32)))
