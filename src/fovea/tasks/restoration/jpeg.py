"""JPEG as tensor arithmetic: what a file of that quality would keep of images, each with a quality of its own.

Colour is converted to YCbCr (JFIF), chroma averaged over 2 x 2 pixels (4:2:0), blocks of 8 x 8 transformed (DCT),
divided by the standard tables, rounded, and all of it undone. Sides are padded with zeros to multiples of 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

LUMINANCE = """
16 11 10 16 24 40 51 61    12 12 14 19 26 58 60 55    14 13 16 24 40 57 69 56    14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
CHROMINANCE = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""


def round_softly(x: Tensor) -> Tensor:
    """Rounding plus the cube of what it changed: nearly rounding, with a gradient."""
    return x.round() + (x - x.round()) ** 3


def compress(images: Tensor, quality: Tensor, rounding: Callable[[Tensor], Tensor] = torch.round) -> Tensor:
    """``[B, 3, H, W]`` in [0, 1] as JPEG files of ``quality [B]`` (1 to 100) would show them, in [0, 1].

    Args:
        rounding: of the coefficients; ``round_softly`` lets gradients through.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images * 255, (0, -width % 16, 0, -height % 16))
    y, cb, cr = (padded.movedim(1, -1) @ _matrix(TO_YCC, images)).movedim(-1, 1).unbind(1)
    factor = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    restored = []
    for plane, table, small in ((y, LUMINANCE, False), (cb, CHROMINANCE, True), (cr, CHROMINANCE, True)):
        plane = F.avg_pool2d(plane[:, None], 2)[:, 0] if small else plane - 128
        steps = _table(table, images) * factor[:, None, None, None, None]
        plane = _blocks(rounding(_blocks(plane, forward=True) / steps) * steps, forward=False)
        restored.append(plane.repeat_interleave(2, -1).repeat_interleave(2, -2) if small else plane + 128)
    rgb = torch.stack(restored, -1) @ _matrix(TO_RGB, images)
    return (rgb.movedim(-1, 1).clamp(0, 255) / 255)[..., :height, :width]


TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def _matrix(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(rows).T.to(like)


def _table(text: str, like: Tensor) -> Tensor:
    """The table as the official differentiable JPEG uses it: transposed."""
    return torch.tensor([float(word) for word in text.split()]).view(8, 8).T.to(like)


def _blocks(plane: Tensor, *, forward: bool) -> Tensor:
    """DCT of the plane's blocks, ``[B, H, W] -> [B, H/8, W/8, 8, 8]``, or its inverse."""
    place = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * place[None, :] + 1) * place[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    basis = basis.to(plane)
    if forward:
        blocks = plane.unflatten(1, (-1, 8)).unflatten(-1, (-1, 8)).transpose(2, 3)
        return basis @ blocks @ basis.T
    return (basis.T @ plane @ basis).transpose(2, 3).flatten(3, 4).flatten(1, 2)
