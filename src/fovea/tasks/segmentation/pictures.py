"""Volumes as people look at them: three planes through a place, the masks laid over in colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Masks = NDArray[np.bool_]

PLANES = ("sagittal", "coronal", "axial")
"""The planes across the first, second and third axis of a volume in the customary orientation."""
COLOURS = ((230, 60, 60), (240, 200, 40), (60, 150, 240), (60, 190, 110), (200, 100, 220))


def place(masks: Masks) -> tuple[int, int, int]:
    """Where there is most to see: of each axis the plane that cuts most of the masks; the middle if they are empty."""
    if not masks.any():
        return tuple(n // 2 for n in masks.shape[1:])  # type: ignore[return-value]
    count = masks.sum(0)
    found = [int(count.sum(tuple(other for other in range(3) if other != axis)).argmax()) for axis in range(3)]
    return found[0], found[1], found[2]


def planes(
    image: NDArray[np.floating], masks: Masks | None, at: tuple[int, int, int], *, regions: bool, least: int = 200
) -> list[Pixels]:
    """Three pictures ``[H, W, 3]`` of a volume ``[*size]`` through ``at``, up being up, enlarged by a whole number.

    Masks colour what they cover. Where they are nested regions (TC, WT, ET), the inner ones are seen over the outer.
    """
    low, high = np.percentile(image[image != 0], (1, 99)) if image.any() else (0.0, 1.0)
    grey = np.clip((image - low) / max(high - low, 1e-12), 0, 1) * (image != 0)
    found = []
    for axis in range(3):
        part = np.take(grey, at[axis], axis)
        picture = np.repeat(part[..., None], 3, -1) * 255
        if masks is not None:
            order = np.argsort([-int(mask.sum()) for mask in masks]) if regions else range(len(masks))
            for index in order:
                cut = np.take(masks[index], at[axis], axis)
                colour = np.array(COLOURS[index % len(COLOURS)])
                picture[cut] = 0.45 * np.take(grey, at[axis], axis)[cut][:, None] * 255 + 0.55 * colour
        turned = np.rot90(picture).round().astype(np.uint8)
        factor = max(1, -(-least // max(turned.shape[:2])))
        found.append(turned.repeat(factor, 0).repeat(factor, 1))
    return found
