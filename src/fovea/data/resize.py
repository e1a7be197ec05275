"""Bicubic resizing as MATLAB's ``imresize`` does it, which is how the low-resolution benchmark images are made."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def imresize(
    images: Tensor,
    scale: float | tuple[float, float] | None = None,
    *,
    size: tuple[int, int] | None = None,
    antialiasing: bool = True,
) -> Tensor:
    """Resize by the bicubic kernel (a = -0.5), widened by ``1 / scale`` where it shrinks.

    Output pixel ``i`` (from 0) looks at input position ``(i + 0.5) / scale - 0.5``; weights are normalised to sum 1;
    beyond the border the image is mirrored, edge pixel included. Nothing is clipped. Differentiable.

    Args:
        images: floating point, ``[..., height, width]``.
        scale: factor of both axes, or of ``(height, width)``; the output has ``ceil(length * scale)`` pixels.
        size: ``(height, width)`` of the output, instead of ``scale``.
        antialiasing: whether to widen the kernel when shrinking (without it, pixels are skipped).

    Returns:
        ``[..., new height, new width]`` in the dtype of ``images``.

    >>> imresize(torch.ones(3, 8, 6), 0.5).shape
    torch.Size([3, 4, 3])
    """
    if images.ndim < 2 or 0 in images.shape[-2:] or not images.is_floating_point():
        raise ValueError(f"images must be floating point [..., height, width], not {images.dtype} {list(images.shape)}")
    if (scale is None) == (size is None):
        raise ValueError(f"give either scale or size; got scale={scale}, size={size}")
    height, width = images.shape[-2:]
    if size is not None:
        if min(size) < 1:
            raise ValueError(f"size must be at least 1 pixel, not {size}")
        scales = (size[0] / height, size[1] / width)
    else:
        assert scale is not None
        scales = scale if isinstance(scale, tuple) else (scale, scale)
        if not all(0 < factor < math.inf for factor in scales):
            raise ValueError(f"scale must be positive, not {scale}")
        # 1e-9 forgives what binary fractions add: 30 pixels times 0.1 are 3, not 4.
        size = (math.ceil(height * scales[0] - 1e-9), math.ceil(width * scales[1] - 1e-9))
    rows, columns = (
        torch.from_numpy(weights(*axis, antialiasing)).to(images)
        for axis in ((height, size[0], scales[0]), (width, size[1], scales[1]))
    )
    if size[0] * width <= height * size[1]:
        return (rows @ images) @ columns.mT
    return rows @ (images @ columns.mT)


@lru_cache(maxsize=64)
def weights(length: int, new_length: int, scale: float, antialiasing: bool = True) -> NDArray[np.float64]:
    """``[new_length, length]``: what each output pixel takes of each input pixel along one axis. Do not write to it."""
    stretch = min(scale, 1.0) if antialiasing else 1.0
    centre = (np.arange(new_length) + 0.5) / scale - 0.5
    taps = math.ceil(4 / stretch) + 2
    position = np.floor(centre - 2 / stretch).astype(np.int64)[:, None] + np.arange(taps)
    value = stretch * _cubic(stretch * (centre[:, None] - position))
    value /= value.sum(axis=1, keepdims=True)
    mirrored = position % (2 * length)
    mirrored = np.minimum(mirrored, 2 * length - 1 - mirrored)
    table = np.zeros((new_length, length))
    np.add.at(table, (np.arange(new_length)[:, None], mirrored), value)
    return table


def _cubic(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 (IEEE TASSP 1981, equation 15)."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


def modcrop(images: Tensor, scale: int) -> Tensor:
    """Cut ``[..., height, width]`` at the bottom and right to multiples of ``scale``.

    Raises:
        ValueError: a side is shorter than ``scale``.
    """
    height, width = images.shape[-2:]
    if min(height, width) < scale:
        raise ValueError(f"an image of {width}x{height} pixels (width x height) is smaller than the scale, {scale}")
    return images[..., : height - height % scale, : width - width % scale]


def downscale(images: Tensor, scale: int) -> Tensor:
    """The low-resolution partner of images in [0, 1]: bicubic ``1 / scale``, rounded to 8 bits.

    Args:
        images: ``[..., height, width]``, both multiples of ``scale`` (see :func:`modcrop`).
    """
    if images.shape[-2] % scale or images.shape[-1] % scale:
        raise ValueError(f"the sides of {list(images.shape)} must be multiples of {scale}; crop the image first")
    return quantize(imresize(images, 1 / scale))


def quantize(images: Tensor) -> Tensor:
    """Clip to [0, 1] and round to multiples of 1/255, halves to even."""
    return images.clamp(0, 1).mul(255).round().div(255)
