"""Patches around pixels; beyond the border of the scene there are zeros, the mean of what is standardised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


class Patches:
    """Square patches of an image of components ``[rows, columns, K]``.

    >>> image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    >>> Patches(image, 3)([0])[0, 0]
    array([[0., 0., 0.],
           [0., 0., 1.],
           [0., 3., 4.]], dtype=float32)

    Args:
        image: the components.
        side: of the patches; with an even one there is a pixel more before the middle than behind it.
    """

    def __init__(self, image: Image, side: int) -> None:
        self.side, self.size = side, image.shape[:2]
        before, behind = side // 2, side - side // 2 - 1
        padded = np.pad(image, ((before, behind), (before, behind), (0, 0)))
        self._all = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (0, 1))  # [rows, columns, K, P, P]

    def __call__(self, places: NDArray[np.integer] | list[int]) -> Image:
        """``[pixels, K, side, side]`` around the pixels at these places of the flattened image."""
        rows, columns = np.unravel_index(np.asarray(places), self.size)
        return np.ascontiguousarray(self._all[rows, columns])
