"""Blur kernels of the real-world degradation: Gaussians of several forms, and sinc (arXiv 2107.10833, 3.2 and 3.4).

On a centred grid, ``m = x' S^-1 x`` with ``S = R diag(sx^2, sy^2) R'``: Gaussian ``exp(-m/2)``, generalised
``exp(-m^beta/2)``, plateau ``1/(1 + m^beta)``; sinc ``w J1(w r)/(2 pi r)``. All divided by their sum.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Form = Literal["gaussian", "generalised", "plateau"]


def bell(
    size: int, sigma: tuple[float, float], theta: float = 0.0, *, form: Form = "gaussian", beta: float = 1.0
) -> Tensor:
    """``[size, size]`` float64: a bell of deviations ``sigma`` along its axes, turned by ``theta`` (radians)."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    x, y = place[None, :], place[:, None]
    cos, sin = math.cos(theta), math.sin(theta)
    along, across = (cos * x + sin * y) / sigma[0], (cos * y - sin * x) / sigma[1]
    m = along.square() + across.square()
    kernel = 1 / (1 + m**beta) if form == "plateau" else torch.exp(-(m**beta if form == "generalised" else m) / 2)
    return kernel / kernel.sum()


def sinc(size: int, cutoff: float, padded: int = 0) -> Tensor:
    """``[size, size]`` float64: the circular low-pass of that cutoff (radians a pixel), zero-padded to ``padded``."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    radius = torch.hypot(place[:, None], place[None, :])
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[radius == 0] = cutoff**2 / (4 * math.pi)
    return embedded(kernel / kernel.sum(), padded)


def embedded(kernel: Tensor, size: int) -> Tensor:
    """The kernel in the middle of zeros, ``[size, size]``; as it is where it is that large already."""
    margin = max(0, (size - len(kernel)) // 2)
    return torch.nn.functional.pad(kernel, (margin,) * 4)
