"""Natural-looking images are a function of their seed and have the spectrum of natural ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fovea.data.synthetic.natural import clouds, image, leaves

Generator = Callable[[int, int], np.ndarray]


def slope(generator: Generator) -> float:
    """By what power of the frequency the amplitude falls, on the mean of several images."""
    size = 128
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = np.zeros((size, size // 2 + 1))
    for seed in range(8):
        grey = generator(size, seed).astype(float).mean(2)
        power += np.abs(np.fft.rfft2((grey - grey.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    middle = (frequency > 0.04) & (frequency < 0.3)
    return -np.polyfit(np.log(frequency[middle]), np.log(power[middle]) / 2, 1)[0]


@pytest.mark.parametrize("generator", [clouds, leaves, image])
@pytest.mark.parametrize("size", [1, 9, 64])
def test_shape_and_seed(generator: Generator, size: int) -> None:
    image = generator(size, 5)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, generator(size, 5))
    if size > 1:
        assert np.abs(image.astype(float) - generator(size, 6)).mean() > 5
        assert image.std() > 10


def test_clouds_fall_as_asked() -> None:
    assert slope(clouds) == pytest.approx(1.0, abs=0.15)
    assert slope(lambda size, seed: clouds(size, seed, 1.6)) == pytest.approx(1.6, abs=0.2)


def test_leaves_fall_like_photographs_and_have_edges() -> None:
    assert 0.9 < slope(leaves) < 1.7
    steps = np.concatenate([np.abs(np.diff(leaves(96, seed).astype(float), axis=0)).ravel() for seed in range(6)])
    smooth = np.concatenate([np.abs(np.diff(clouds(96, seed).astype(float), axis=0)).ravel() for seed in range(6)])
    assert np.median(steps) < np.median(smooth)
    assert np.quantile(steps, 0.98) > 1.5 * np.quantile(smooth, 0.98)
