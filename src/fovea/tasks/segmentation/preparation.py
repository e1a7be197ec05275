"""How volumes become what networks see: normalised, cropped, augmented (MONAI's transforms, in the official order)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fovea.tasks.segmentation.config import Data
from fovea.tasks.segmentation.monai import monai, quietly

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


def normalised(image: Floats) -> Floats:
    """Each channel with mean 0 and deviation 1 over its non-zero voxels; zeros stay."""
    with quietly():
        out = monai("transforms").NormalizeIntensity(nonzero=True, channel_wise=True)(image)
    return np.asarray(out, np.float32)


def bounded(image: Floats, target: Labels, roi: tuple[int, ...]) -> tuple[Floats, Labels]:
    """Both cut to the box of the image's non-zero voxels, grown to at least ``roi`` where the volume has room."""
    seen = np.asarray(image.any(0))
    slices = [slice(None)]
    for axis, least in enumerate(roi):
        line = np.flatnonzero(np.moveaxis(seen, axis, 0).reshape(seen.shape[axis], -1).any(1))
        low, high = (int(line[0]), int(line[-1]) + 1) if len(line) else (0, seen.shape[axis])
        grow = max(0, min(least, seen.shape[axis]) - (high - low))
        low = max(0, min(low - grow // 2, seen.shape[axis] - (high - low) - grow))
        slices.append(slice(low, max(high, low + min(least, seen.shape[axis]))))
    return image[tuple(slices)], target[tuple(slices)]


def example(image: Floats, target: Labels, data: Data, draw: np.random.Generator) -> dict[str, Tensor]:
    """A training crop ``image [C, *roi]`` and ``target``; all that is random comes from ``draw``.

    The crop is centred on a voxel of the foreground in ``data.foreground`` of the cases, else it lies anywhere; where a
    volume is smaller than the crop it is filled up with zeros. Then come flips, and scaled and shifted intensities.
    """
    roi = data.roi
    missing = [max(0, side - n) for side, n in zip(roi, image.shape[1:], strict=True)]
    if any(missing):
        sides = [(0, 0), *((count // 2, count - count // 2) for count in missing)]
        image, target = np.pad(image, sides), np.pad(target, sides)
    room = np.array(image.shape[1:]) - roi
    corner = np.array([draw.integers(0, r + 1) for r in room])
    if draw.random() < data.foreground:
        places = np.argwhere(target.any(0))
        if len(places):
            centre = places[int(draw.integers(len(places)))]
            away = [int(draw.integers(-(side // 8), side // 8 + 1)) for side in roi]
            corner = np.clip(centre - np.array(roi) // 2 + away, 0, room)
    part = (slice(None), *(slice(int(c), int(c) + side) for c, side in zip(corner, roi, strict=True)))
    crop = {"image": image[part].copy(), "target": target[part].copy()}
    if data.normalise == "crop":
        crop["image"] = normalised(crop["image"])
    if data.augment:
        with quietly():
            augmentation = _augmentation()
            augmentation.set_random_state(seed=int(draw.integers(2**31)))
            crop = augmentation(crop)
    return {
        "image": torch.as_tensor(np.ascontiguousarray(crop["image"]), dtype=torch.float32),
        "target": torch.as_tensor(np.ascontiguousarray(crop["target"])),
    }


def _augmentation() -> Any:
    t = monai("transforms")
    return t.Compose(
        [
            *(t.RandFlipd(keys=("image", "target"), prob=0.5, spatial_axis=axis) for axis in range(3)),
            t.RandScaleIntensityd(keys="image", factors=0.1, prob=1.0),
            t.RandShiftIntensityd(keys="image", offsets=0.1, prob=1.0),
        ]
    )
