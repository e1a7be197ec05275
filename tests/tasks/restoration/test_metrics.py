"""PSNR and SSIM against their definitions, a window at a time, and in the cases that papers do not mention."""

from __future__ import annotations

import numpy as np
import pytest

from fovea.tasks.restoration.metrics import luminance, psnr, ssim


def pair(channels: int = 3, size: tuple[int, int] = (17, 14)) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    first = draw.integers(0, 256, (*size, channels))
    second = (first + draw.normal(0, 20, first.shape)).round().clip(0, 255)
    return first.astype(np.uint8), second.astype(np.uint8)


def test_luminance_is_in_studio_swing() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    np.testing.assert_allclose(luminance(colours)[0, :, 0], [16, 235, 81.481], atol=1e-3)


def test_psnr_of_one_level() -> None:
    first = np.full((6, 6, 1), 100, np.uint8)
    assert psnr(first, first + 1, border=0, y=False) == pytest.approx(20 * np.log10(255))
    assert psnr(first, first, border=0, y=False) == float("inf")
    second = first.copy()
    second[0] = 0
    assert psnr(first, second, border=1, y=False) == float("inf")


@pytest.mark.parametrize(("channels", "y"), [(1, False), (1, True), (3, False), (3, True)])
def test_ssim_is_the_definition(channels: int, y: bool) -> None:
    first, second = pair(channels)
    border = 1
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    window = (window / window.sum())[..., None]
    a, b = (luminance(image) if y and channels == 3 else image.astype(float) for image in (first, second))
    a, b = (image[border:-border, border:-border] for image in (a, b))
    values = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            p, q = (image[row : row + 11, column : column + 11] for image in (a, b))
            mean_p, mean_q = (window * p).sum((0, 1)), (window * q).sum((0, 1))
            var_p, var_q = (window * (p - mean_p) ** 2).sum((0, 1)), (window * (q - mean_q) ** 2).sum((0, 1))
            both = (window * (p - mean_p) * (q - mean_q)).sum((0, 1))
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mean_p * mean_q + c1) * (2 * both + c2) / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
            )
    assert ssim(first, second, border=border, y=y) == pytest.approx(np.mean(values), abs=1e-9)
    assert ssim(first, first, border=border, y=y) == pytest.approx(1)


def test_grey_counts_alike_in_both_spaces() -> None:
    first, second = pair(1)
    assert psnr(first, second, border=2, y=True) == psnr(first, second, border=2, y=False)


def test_what_cannot_be_compared() -> None:
    first, second = pair()
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match="must be the same"):
            metric(first, second[1:], border=0, y=True)
        with pytest.raises(ValueError, match="uint8"):
            metric(first / 255, second / 255, border=0, y=True)
        with pytest.raises(ValueError, match="border=7"):
            metric(first, second, border=7, y=True)
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(first, second, border=2, y=True)
