"""The real world in two rounds of blur, resizing, noise and JPEG (Real-ESRGAN, arXiv 2107.10833; Real-HAT's options).

Everything random is drawn from torch's global state on the processor, so that a training step is a function of its
seed. The official code degrades a batch alike and then mixes the pairs of many batches in a pool. Here every image is
degraded by itself: batches are as varied, and nothing has to be remembered from step to step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.data.resize import quantize
from fovea.tasks.fit import Batch
from fovea.tasks.restoration import kernels
from fovea.tasks.restoration.jpeg import compress


@dataclass(frozen=True)
class Round:
    """The ranges that one round of degradation draws from."""

    blurred: float
    sigma: tuple[float, float]
    enlarged: float
    reduced: float
    scale: tuple[float, float]
    gaussian: tuple[float, float]
    poisson: tuple[float, float]
    grey: float = 0.4
    quality: tuple[float, float] = (30.0, 95.0)


FIRST = Round(1.0, (0.2, 3.0), 0.2, 0.7, (0.15, 1.5), (1.0, 30.0), (0.05, 3.0))
SECOND = Round(0.8, (0.2, 1.5), 0.3, 0.4, (0.3, 1.2), (1.0, 25.0), (0.05, 2.5))
KERNEL = 21


def real_pairs(batch: Batch, scale: int, patch: int) -> Batch:
    """Clean images ``high [B, 3, H, W]`` to training patches: ``low``, ``high``, and ``sharp``, unsharp-masked.

    Each image is degraded whole, from its sharpened form, and a patch of ``patch`` low-quality pixels cut out of it.
    The draws are each image's own. (The official training resizes and filters a batch alike and mixes it up again
    through a pool of 180 pairs; here every batch is as various as that pool.)
    """
    sharp = sharpened(batch["high"])
    low = torch.stack([degrade(image, scale) for image in sharp])
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for image, clean, keen in zip(low, batch["high"], sharp, strict=True):
        row, column = (int(torch.randint(size - patch + 1, ())) for size in image.shape[-2:])
        small = np.s_[:, row : row + patch, column : column + patch]
        large = np.s_[:, row * scale : (row + patch) * scale, column * scale : (column + patch) * scale]
        parts.append((image[small], clean[large], keen[large]))
    return dict(zip(("low", "high", "sharp"), map(torch.stack, zip(*parts, strict=True)), strict=True))


def degrade(high: Tensor, scale: int) -> Tensor:
    """``[3, H, W]`` in [0, 1] to ``[3, H / scale, W / scale]``, rounded to bytes: sides are multiples of ``scale``."""
    height, width = high.shape[-2] // scale, high.shape[-1] // scale
    image = _once(high[None], FIRST, (high.shape[-2], high.shape[-1]))
    image = compress(image.clamp(0, 1), _quality(FIRST, image))
    image = _once(image, SECOND, (height, width))
    final = _final_sinc(image)
    if _chance(0.5):
        image = filtered(_resized(image, (height, width)), final)
        image = compress(image.clamp(0, 1), _quality(SECOND, image))
    else:
        image = compress(image.clamp(0, 1), _quality(SECOND, image))
        image = filtered(_resized(image, (height, width)), final)
    return quantize(image)[0]


def _once(image: Tensor, drawn: Round, base: tuple[int, int]) -> Tensor:
    """Blur, resizing (of ``base``) and noise of one round."""
    if _chance(drawn.blurred):
        image = filtered(image, _kernel(drawn).to(image))
    choice = _uniform(0, 1)
    low, high = drawn.scale
    factor = _uniform(1, high) if choice < drawn.enlarged else 1.0
    if drawn.enlarged <= choice < drawn.enlarged + drawn.reduced:
        factor = _uniform(low, 1)
    image = _resized(image, (max(1, int(base[0] * factor)), max(1, int(base[1] * factor))))
    grey = _chance(drawn.grey)
    if _chance(0.5):
        return gaussian_noise(image, _uniform(*drawn.gaussian), grey=grey)
    return poisson_noise(image, _uniform(*drawn.poisson), grey=grey)


def gaussian_noise(image: Tensor, sigma: float, *, grey: bool) -> Tensor:
    """Normal noise of deviation ``sigma`` in levels of 255, the same in all channels where ``grey``; cut to [0, 1]."""
    shape = (len(image), 1, *image.shape[2:]) if grey else image.shape
    return (image + torch.randn(shape).to(image) * sigma / 255).clamp(0, 1)


def poisson_noise(image: Tensor, scale: float, *, grey: bool) -> Tensor:
    """Shot noise times ``scale``: the fewer levels of light an image has, the stronger; cut to [0, 1]."""
    bytes_ = quantize(image)
    if grey:
        bytes_ = quantize((bytes_ * torch.tensor([0.2989, 0.587, 0.114]).to(image).view(3, 1, 1)).sum(1, keepdim=True))
    levels = 2 ** math.ceil(math.log2(max(2, len(bytes_.mul(255).round().unique()))))
    shot = torch.poisson((bytes_ * levels).cpu()).to(image) / levels
    return (image + (shot - bytes_) * scale).clamp(0, 1)


def filtered(images: Tensor, kernel: Tensor) -> Tensor:
    """``[B, C, H, W]`` correlated with a kernel ``[k, k]``, or one an image ``[B, k, k]``, mirrored at the border."""
    batch, channels = images.shape[:2]
    size = kernel.shape[-1]
    padded = _mirrored(images, size // 2)
    weights = kernel.expand(batch, size, size).repeat_interleave(channels, 0)[:, None]
    moved = F.conv2d(padded.flatten(0, 1)[None], weights, groups=batch * channels)
    return moved.view(batch, channels, *images.shape[2:])


def sharpened(images: Tensor, *, radius: int = 50, weight: float = 0.5, threshold: float = 10) -> Tensor:
    """Unsharp masking where the image differs from its blur by more than ``threshold`` levels, softly joined."""
    radius += 1 - radius % 2
    sigma = 0.3 * ((radius - 1) * 0.5 - 1) + 0.8
    blur = kernels.bell(radius, (sigma, sigma)).to(images)
    residue = images - filtered(images, blur)
    soft = filtered((residue.abs() * 255 > threshold).to(images), blur)
    return soft * (images + weight * residue).clamp(0, 1) + (1 - soft) * images


def _kernel(drawn: Round) -> Tensor:
    """One of the round's blur kernels, ``[21, 21]``."""
    size = 2 * int(torch.randint(3, 11, ())) + 1
    if _chance(0.1):
        return kernels.sinc(size, _uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi), KERNEL)
    shares = torch.tensor([0.45, 0.25, 0.12, 0.03, 0.12, 0.03])
    kind = int(torch.multinomial(shares, 1))
    form: kernels.Form = ("gaussian", "generalised", "plateau")[kind // 2]
    sigma = _uniform(*drawn.sigma)
    turned = kind % 2 == 1
    sigmas = (sigma, _uniform(*drawn.sigma) if turned else sigma)
    theta = _uniform(-math.pi, math.pi) if turned else 0.0
    low, high = {"gaussian": (1.0, 1.0), "generalised": (0.5, 4.0), "plateau": (1.0, 2.0)}[form]
    beta = _uniform(low, 1) if _chance(0.5) else _uniform(1, high)
    return kernels.embedded(kernels.bell(size, sigmas, theta, form=form, beta=beta), KERNEL)


def _final_sinc(image: Tensor) -> Tensor:
    if not _chance(0.8):
        return kernels.embedded(torch.ones(1, 1), KERNEL).to(image)
    size = 2 * int(torch.randint(3, 11, ())) + 1
    return kernels.sinc(size, _uniform(math.pi / 3, math.pi), KERNEL).to(image)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    mode = ("area", "bilinear", "bicubic")[int(torch.randint(3, ()))]
    return F.interpolate(image, size, mode=mode, **({} if mode == "area" else {"align_corners": False}))


def _mirrored(images: Tensor, margin: int) -> Tensor:
    """Reflection at all sides, repeated where the image is smaller than the margin."""
    for axis in (-2, -1):
        size = images.shape[axis]
        period = max(1, 2 * (size - 1))
        place = torch.arange(-margin, size + margin) % period
        images = images.index_select(axis, torch.where(place < size, place, period - place).to(images.device))
    return images


def _quality(drawn: Round, image: Tensor) -> Tensor:
    return torch.tensor([_uniform(*drawn.quality)]).to(image)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _chance(probability: float) -> bool:
    return float(torch.rand(())) < probability
