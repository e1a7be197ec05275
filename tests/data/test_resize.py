"""The resize against MATLAB's definition written out and against the images that are shipped."""

from __future__ import annotations

import math
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from fovea.data.images import list_images, read
from fovea.data.resize import downscale, imresize, modcrop, quantize
from fovea.tasks.restoration.metrics import psnr, ssim


def cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def one_axis(line: list[float], size: int, scale: float) -> list[float]:
    """The definition, a pixel at a time: the weighted mean of all mirrored input pixels within reach."""
    stretch = min(scale, 1.0)
    result = []
    for out in range(size):
        centre = (out + 0.5) / scale - 0.5
        total = weight = 0.0
        for position in range(math.floor(centre - 2 / stretch), math.ceil(centre + 2 / stretch) + 1):
            mirrored = position % (2 * len(line))
            mirrored = min(mirrored, 2 * len(line) - 1 - mirrored)
            share = cubic(stretch * (centre - position))
            total, weight = total + share * line[mirrored], weight + share
        result.append(total / weight)
    return result


@settings(max_examples=40)
@given(st.integers(1, 14), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20))
def test_is_the_definition(height: int, width: int, new_height: int, new_width: int) -> None:
    image = torch.rand(height, width, dtype=torch.float64)
    columns = torch.tensor([one_axis(line, new_width, new_width / width) for line in image.tolist()])
    both = torch.tensor([one_axis(line, new_height, new_height / height) for line in columns.mT.tolist()]).mT
    found = imresize(image, size=(new_height, new_width))
    torch.testing.assert_close(found, both.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("scale", "sides"), [(2, (10, 14)), (1 / 3, (2, 3)), (0.1, (1, 1)), ((2.5, 0.5), (13, 4))])
def test_size_by_scale(scale: float, sides: tuple[int, int]) -> None:
    assert imresize(torch.rand(2, 3, 5, 7), scale).shape == (2, 3, *sides)


def test_thirty_pixels_by_a_tenth_are_three() -> None:
    assert imresize(torch.rand(30, 30), 0.1).shape == (3, 3)


def test_same_size_changes_nothing_and_constants_stay() -> None:
    image = torch.rand(3, 9, 8)
    torch.testing.assert_close(imresize(image, 1), image)
    for scale in (0.3, 1 / 3, 2, 3.7):
        result = imresize(torch.full((1, 11, 6), 0.7), scale)
        torch.testing.assert_close(result, torch.full_like(result, 0.7))


def test_no_antialiasing_skips_pixels() -> None:
    line = torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])[None]
    smooth, skipped = (imresize(line, (1.0, 0.2), antialiasing=value) for value in (True, False))
    assert skipped.abs().sum() == 0
    assert smooth.abs().sum() > 0


def test_gradient() -> None:
    image = torch.rand(1, 5, 6, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: imresize(x, (0.5, 1.7)), image)


def test_batch_is_each_alone() -> None:
    images = torch.rand(2, 3, 12, 9)
    torch.testing.assert_close(imresize(images, 1 / 3), torch.stack([imresize(image, 1 / 3) for image in images]))


def test_wrong_arguments() -> None:
    image = torch.rand(3, 4, 4)
    for call, match in (
        (lambda: imresize(image.byte(), 2), "floating point"),
        (lambda: imresize(torch.rand(3, 0, 4), 2), "floating point"),
        (lambda: imresize(image), "either scale or size"),
        (lambda: imresize(image, 2, size=(2, 2)), "either scale or size"),
        (lambda: imresize(image, 0.0), "positive"),
        (lambda: imresize(image, size=(0, 2)), "at least 1"),
        (lambda: modcrop(image, 5), "smaller than the scale"),
        (lambda: downscale(image, 3), "multiples of 3"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_modcrop_and_quantize() -> None:
    assert modcrop(torch.rand(3, 10, 11), 4).shape == (3, 8, 8)
    torch.testing.assert_close(
        quantize(torch.tensor([-0.5, 0.1, 2.0])), torch.tensor([0.0, 26 / 255, 1.0]), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize(
    ("scale", "decibel", "similarity"), [(2, 33.678, 0.9304), (3, 30.404, 0.8690), (4, 28.431, 0.8113)]
)
def test_set5(scale: int, decibel: float, similarity: float, shared_data: Path) -> None:
    """The low images of Set5 to two levels, and the published numbers of bicubic enlargement to the last digit."""

    def levels(image: torch.Tensor) -> np.ndarray:
        return (image * 255).round().byte().movedim(0, -1).numpy()

    measured = []
    for path in list_images(shared_data / "set5" / "HR"):
        high = modcrop(read(path).pixels.double(), scale)
        low = read(shared_data / "set5" / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png").pixels.double()
        assert (downscale(high, scale) - low).abs().max() * 255 < 2.001
        estimate, truth = levels(quantize(imresize(low, scale))), levels(high)
        measured.append([metric(estimate, truth, border=scale, y=True) for metric in (psnr, ssim)])
    mean = np.mean(measured, axis=0)
    assert mean[0] == pytest.approx(decibel, abs=5.1e-4)
    assert mean[1] == pytest.approx(similarity, abs=5.1e-5)
