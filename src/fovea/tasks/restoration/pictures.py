"""What a restoration shows of itself: crops side by side, a table of images, where the network looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fovea.tasks.report import Report

Pixels = NDArray[np.uint8]
Levels = NDArray[np.uint8] | NDArray[np.float32]
"""What a network is given, in levels of 255: a file's bytes, or noise added to them."""


@dataclass(frozen=True)
class Restoration:
    """One image restored: pictures ``[H, W, C]`` (``low`` at its own size) and what was measured on them."""

    name: str
    low: Pixels
    baseline: Pixels
    ours: Pixels
    truth: Pixels
    measured: Mapping[str, float]


def table(report: Report, restorations: Sequence[Restoration], baseline: str, ours: str) -> Report:
    """One row an image: PSNR and SSIM of the baseline, ours, and the gain; the last row is the mean."""
    rows = []
    for item in restorations:
        rows.append([item.name, *_row(item.measured)])
    means = {key: float(np.mean([item.measured[key] for item in restorations])) for key in restorations[0].measured}
    header = ["image", f"PSNR {baseline}", f"PSNR {ours}", "gain (dB)", f"SSIM {baseline}", f"SSIM {ours}"]
    return report.table(header, [*rows, ["mean", *_row(means)]], strong_last=True, digits=4)


def _row(measured: Mapping[str, float]) -> list[float | str]:
    before, after = measured["baseline_psnr"], measured["psnr"]
    decibels = [f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}"]
    return [*decibels, measured["baseline_ssim"], measured["ssim"]]


def side_by_side(
    report: Report,
    item: Restoration,
    baseline: str,
    ours: str,
    others: Sequence[tuple[str, Restoration]] = (),
    *,
    size: int = 72,
    crops: int = 2,
) -> Report:
    """The whole image, then the places where the baseline is most wrong, enlarged, all ways side by side."""
    psnr, before = item.measured["psnr"], item.measured["baseline_psnr"]
    report.pictures([(f"{item.name}: {ours}, {psnr:.2f} dB", item.ours), ("truth", item.truth)], least=300)
    for row, column in hardest(item.baseline, item.truth, size, crops):
        part = np.s_[row : row + size, column : column + size]
        scale = item.truth.shape[0] // item.low.shape[0]
        small = np.s_[row // scale : (row + size) // scale, column // scale : (column + size) // scale]
        pictures = [
            ("low resolution" if scale > 1 else "input", item.low[small]),
            (f"{baseline}, {before:.2f} dB", item.baseline[part]),
            (f"{ours}, {psnr:.2f} dB", item.ours[part]),
            *((f"{name}, {other.measured['psnr']:.2f} dB", other.ours[part]) for name, other in others),
            ("truth", item.truth[part]),
        ]
        report.pictures(pictures, least=140, pixels=True)
    return report


def hardest(estimate: Pixels, truth: Pixels, size: int, count: int) -> list[tuple[int, int]]:
    """Top left corners of the ``count`` windows, apart from each other, where ``estimate`` is furthest from the truth.

    Corners are even, so that they fall between pixels of images two and four times smaller (``size`` should be too).
    """
    size = min(size, *truth.shape[:2])
    error = np.square(estimate.astype(np.float64) - truth).reshape(*truth.shape[:2], -1).mean(-1)
    total = np.pad(error, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    window = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    window = window[::12, ::12].copy()
    corners: list[tuple[int, int]] = []
    while len(corners) < count and np.isfinite(window).any():
        row, column = np.unravel_index(int(np.argmax(window)), window.shape)
        corners.append((int(row) * 12, int(column) * 12))
        reach = -(-size // 12)
        window[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = -np.inf
    return corners


def overlay(image: Pixels, heat: NDArray[np.floating], strength: float = 4.0) -> Pixels:
    """The image in grey with ``heat`` (at least 0; zero leaves the grey) laid over it in red to yellow."""
    grey = image.astype(np.float64).reshape(*image.shape[:2], -1).mean(-1, keepdims=True) / 255 * 0.6 + 0.2
    level = np.clip(heat / max(float(heat.max()), 1e-12) * strength, 0, 1)[..., None] ** 0.5
    colour = np.concatenate([np.ones_like(level), level, np.zeros_like(level)], axis=-1)
    return ((grey * (1 - level) + colour * level) * 255).round().astype(np.uint8)
