"""What masks of pixels or voxels are asked: how far it is to their border, which of them hang together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def depth_inside(mask: Mask, spacing: Sequence[float] | None = None) -> NDArray[np.float64]:
    """How far each element of the mask is from the nearest one outside of it; 0 outside."""
    return cast("NDArray[np.float64]", ndimage.distance_transform_edt(mask, sampling=spacing))


def parts(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """The connected parts of a mask numbered from 1 (also those that touch by a corner), and how many there are."""
    numbered, count = cast("tuple[NDArray[np.int32], int]", ndimage.label(mask, np.ones((3,) * mask.ndim)))
    return numbered, count


def surface(mask: Mask) -> Mask:
    """The elements with a neighbour, by a face, outside of the mask or of the array."""
    return mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(mask.ndim, 1))
