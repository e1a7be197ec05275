"""Textures are a function of their seed, repeat themselves, and are unlike each other."""

from __future__ import annotations

import numpy as np
import pytest

from fovea.data.synthetic import textures
from fovea.data.synthetic.textures import texture


@pytest.mark.parametrize("size", [1, 7, 64])
def test_shape_and_range(size: int) -> None:
    image = texture(size, 0)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_a_function_of_the_seed() -> None:
    np.testing.assert_array_equal(texture(48, (7, 3)), texture(48, (7, 3)))
    images = np.stack([texture(48, (7, index)) for index in range(12)]).astype(float)
    assert min(np.abs(a - b).mean() for i, a in enumerate(images) for b in images[:i]) > 5


def test_textures_use_the_range_and_have_detail() -> None:
    images = np.stack([texture(96, index) for index in range(24)]).astype(float)
    assert 60 < images.mean() < 195
    assert np.mean([np.abs(np.diff(image, axis=1)).mean() for image in images]) > 4


@pytest.mark.parametrize("shape", textures._SHAPES)
def test_shapes_repeat_each_period(shape: object) -> None:
    assert callable(shape)
    v, u = np.mgrid[0:8:160j, 0:8:160j][:, :, :]
    cover = shape(u, v, np.random.default_rng(1))
    assert cover.min() >= 0
    assert cover.max() <= 1
    np.testing.assert_allclose(cover, shape(u + 2, v + 4, np.random.default_rng(1)), atol=0.02)
    assert cover.std() > 0.1


def test_what_is_hidden_can_be_seen_elsewhere() -> None:
    """Most textures are alike again after a shift: the highest autocorrelation beyond 12 pixels."""
    best = []
    for index in range(24):
        image = texture(96, index).astype(float).mean(2)
        image -= image.mean()
        power = np.abs(np.fft.fft2(image)) ** 2
        correlation = np.fft.ifft2(power).real / power.mean()
        place = np.minimum(np.arange(96), 96 - np.arange(96))
        far = np.hypot(place[:, None], place) > 12
        best.append((correlation / correlation[0, 0])[far].max())
    assert np.median(best) > 0.35
