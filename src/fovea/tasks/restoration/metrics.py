"""PSNR and SSIM as the restoration papers report them (BasicSR's definitions), on bytes, computed in float64.

Libraries' SSIM differs from what papers report by some 2e-4 (other borders), which is more than papers' third decimal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def luminance(image: NDArray) -> Floats:
    """``[H, W, 3]`` bytes to Y of BT.601 in studio swing, ``[H, W, 1]``, 16 to 235 and not rounded."""
    return image.astype(np.float64) @ np.array([[65.481], [128.553], [24.966]]) / 255 + 16


def psnr(estimate: NDArray[np.uint8], truth: NDArray[np.uint8], *, border: int, y: bool) -> float:
    """Peak signal-to-noise ratio in dB, without ``border`` pixels at each side; of luminance where ``y``."""
    first, second = _prepared(estimate, truth, border, y)
    error = float(np.square(first - second).mean())
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def ssim(estimate: NDArray[np.uint8], truth: NDArray[np.uint8], *, border: int, y: bool) -> float:
    """Structural similarity (Gaussian 11 x 11, sigma 1.5, valid region), mean over pixels and channels."""
    first, second = _prepared(estimate, truth, border, y)
    if min(first.shape[:2]) < 11:
        raise ValueError(f"SSIM needs 11 pixels a side inside the border; {first.shape[:2]} are left")
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean1, mean2 = _blurred(first), _blurred(second)
    variance1, variance2 = _blurred(first**2) - mean1**2, _blurred(second**2) - mean2**2
    covariance = _blurred(first * second) - mean1 * mean2
    similarity = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    return float((similarity / ((mean1**2 + mean2**2 + c1) * (variance1 + variance2 + c2))).mean())


def _prepared(estimate: NDArray, truth: NDArray, border: int, y: bool) -> tuple[Floats, Floats]:
    if estimate.shape != truth.shape:
        raise ValueError(f"estimate has shape {estimate.shape} and truth {truth.shape}; they must be the same")
    if estimate.dtype != np.uint8 or truth.dtype != np.uint8 or truth.ndim != 3:
        raise ValueError(f"images must be uint8 [H, W, C], not {estimate.dtype} and {truth.dtype} {truth.shape}")
    if 2 * border >= min(truth.shape[:2]):
        raise ValueError(f"border={border} leaves nothing of an image of shape {truth.shape}")
    inside = np.s_[border : truth.shape[0] - border, border : truth.shape[1] - border]
    images = (image[inside] for image in (estimate, truth))
    first, second = (luminance(image) if y and truth.shape[-1] == 3 else image.astype(np.float64) for image in images)
    return first, second


def _blurred(image: Floats) -> Floats:
    window = np.exp(-np.square(np.arange(11) - 5) / (2 * 1.5**2))
    window /= window.sum()
    rows = np.lib.stride_tricks.sliding_window_view(image, 11, 0) @ window
    return np.lib.stride_tricks.sliding_window_view(rows, 11, 1) @ window
