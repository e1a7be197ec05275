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
        focus: weigh the pixels of a patch by ``exp(-d**2 / (2 focus**2))``, ``d`` pixels from the middle one, so that
            the pixel in question stands out from its surroundings.
    """

    def __init__(self, image: Image, side: int, focus: float | None = None) -> None:
        self.side, self.size = side, image.shape[:2]
        before, behind = side // 2, side - side // 2 - 1
        away = np.arange(side) - before
        square = (away[:, None] ** 2 + away**2).astype(np.float32)
        self._weight = None if focus is None else np.exp(-square / np.float32(2 * focus**2))
        padded = np.pad(image, ((before, behind), (before, behind), (0, 0)))
        self._all = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (0, 1))  # [rows, columns, K, P, P]

    def __call__(self, places: NDArray[np.integer] | list[int]) -> Image:
        """``[pixels, K, side, side]`` around the pixels at these places of the flattened image."""
        rows, columns = np.unravel_index(np.asarray(places), self.size)
        found = np.ascontiguousarray(self._all[rows, columns])
        return found if self._weight is None else found * self._weight
