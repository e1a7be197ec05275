"""Local attribution maps and the diffusion index: which pixels of the input a patch of the result was made from.

Gu and Dong, "Interpreting Super-Resolution Networks with Local Attribution Maps", arXiv 2011.11036: integrated
gradients of the patch's gradient magnitude along a path of images, from blurred to sharp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Region:
    """A window of the output image, in its pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class BlurPath:
    """Images from blurred to sharp: ``fold`` steps over which the deviation of a Gaussian falls from ``sigma`` to 0.

    The defaults are those of the authors' demonstration as far as they are known.

    Attributes:
        sigma: deviation at the start, in pixels.
        fold: number of images.
        size: side of the kernel; odd.
    """

    sigma: float = 1.2
    fold: int = 50
    size: int = 9

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"size={self.size}; it must be odd and at least 1")
        if self.fold < 1 or self.sigma <= 0:
            raise ValueError(f"sigma={self.sigma}, fold={self.fold}; they must be above 0")

    def kernel(self, step: int) -> Tensor:
        """``[size, size]`` float64: the normalised Gaussian after so many of ``fold`` steps."""
        sigma = self.sigma * (1 - step / self.fold)
        place = torch.arange(self.size, dtype=torch.float64) - self.size // 2
        kernel = torch.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * (sigma + 1e-5) ** 2))
        return kernel / kernel.sum()

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """``[C, h, w] -> `` images of the path and their derivatives along it, both ``[fold, C, h, w]``."""
        kernels = torch.stack([self.kernel(step) for step in range(self.fold + 1)])
        derivatives = (kernels[1:] - kernels[:-1]) * self.fold
        return self._filter(image, kernels[1:]), self._filter(image, derivatives)

    def _filter(self, image: Tensor, kernels: Tensor) -> Tensor:
        """Correlate every channel with every kernel, in float64, mirrored at the border without repeating the edge."""
        margin = self.size // 2
        padded = np.pad(image.detach().cpu().double().numpy(), ((0, 0), (margin, margin), (margin, margin)), "reflect")
        filtered = F.conv2d(torch.from_numpy(padded)[:, None], kernels[:, None])
        return filtered.movedim(1, 0).to(image)


def gradient_magnitude(output: Tensor, region: Region) -> Tensor:
    """How much happens in a region of images ``[B, C, H, W]``: the length of the gradient, summed over its pixels.

    The gradient of a pixel is its difference to the pixel below and to the one at the right. Pixels without these, at
    the bottom and the right edge of the image, are left out; where all three are equal the length is 0 and so is its
    derivative.
    """
    rows = slice(region.top, region.top + region.height + 1)
    columns = slice(region.left, region.left + region.width + 1)
    patch = output[..., rows, columns]
    inner = patch[..., :-1, :-1]
    square = (inner - patch[..., 1:, :-1]).square() + (inner - patch[..., :-1, 1:]).square()
    flat = square == 0
    return torch.where(flat, 0, torch.where(flat, 1, square).sqrt()).sum()


@dataclass(frozen=True)
class Attribution:
    """What :func:`lam` finds.

    Attributes:
        signed: ``[C, h, w]``: the attribution of each value of the input.
        map: ``[h, w]`` in 0 to 1: its absolute value, channels added, largest 1.
        gini: how unequally ``map`` is spread: 0 all pixels alike, towards 1 all in one.
        diffusion_index: ``(1 - gini) 100``; larger where more pixels take part.
    """

    signed: Tensor
    map: Tensor
    gini: float
    diffusion_index: float


def lam(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    region: Region,
    *,
    path: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    objective: Callable[[Tensor, Region], Tensor] = gradient_magnitude,
    batch: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """The local attribution map of ``region`` of ``network(image)``.

    Args:
        network: ``[B, C, h, w] -> [B, C, H, W]``; a module is put in evaluation mode meanwhile. Its parameters receive
            no gradients.
        image: ``[C, h, w]``.
        region: the window of the output that is explained.
        path: images between no information and ``image``, and their derivatives; :class:`BlurPath` unless given.
        objective: what of the region is explained: a scalar, the sum over the images of a batch.
        batch: images of the path that are computed at once.
        progress: called with images done and images in all.

    Raises:
        ValueError: when the image is not ``[C, h, w]`` or the region does not lie in the output.
    """
    if image.ndim != 3:
        raise ValueError(f"image has shape {tuple(image.shape)}; it must be [C, h, w]")
    images, derivatives = (path or BlurPath())(image)
    training = isinstance(network, nn.Module) and network.training
    if isinstance(network, nn.Module):
        network.eval()
    total, done = torch.zeros_like(image), 0
    try:
        for part, derivative in zip(images.split(batch), derivatives.split(batch), strict=True):
            part = part.clone().requires_grad_()
            with torch.enable_grad():
                output = network(part)
                _check(region, output)
                (gradient,) = torch.autograd.grad(objective(output, region), part)
            total += (gradient.nan_to_num(0) * derivative).sum(0)
            done += len(part)
            if progress is not None:
                progress(done, len(images))
    finally:
        if isinstance(network, nn.Module):
            network.train(training)
    signed = total / len(images)
    strength = signed.sum(0).abs()
    strength = strength / strength.max().clamp_min(torch.finfo(strength.dtype).tiny)
    return Attribution(signed, strength, gini(strength), diffusion_index(strength))


def gini(values: Tensor) -> float:
    """The Gini coefficient of all values, shifted so that the smallest is 0: 0 when all are equal, towards 1 when one
    holds everything.

    >>> round(gini(torch.tensor([0.0, 0.0, 0.0, 1.0])), 2)
    0.75
    """
    ordered = values.detach().double().flatten().sort().values
    ordered = ordered - ordered[0].clamp_max(0) + 1e-7
    n = len(ordered)
    place = torch.arange(1, n + 1, dtype=torch.float64, device=ordered.device)
    return float(((2 * place - n - 1) * ordered).sum() / (n * ordered.sum()))


def diffusion_index(values: Tensor) -> float:
    """``(1 - gini) 100`` of an attribution map: how evenly the pixels take part."""
    return (1 - gini(values)) * 100


def _check(region: Region, output: Tensor) -> None:
    height, width = output.shape[-2:]
    rows = 0 <= region.top < region.top + region.height <= height
    if not (rows and 0 <= region.left < region.left + region.width <= width):
        raise ValueError(f"{region} does not lie in the output of {height} x {width} pixels")
