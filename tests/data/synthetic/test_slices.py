from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.ndimage import label as components

from fovea.data.synthetic.slices import RADII, micro_tumours, volume


@pytest.mark.parametrize("size", [48, 64, 97])
def test_slices_are_pure_in_their_seed(size: int) -> None:
    image, labels = micro_tumours(size, (3, 5))
    assert image.shape == labels.shape == (size, size)
    assert (image.dtype, labels.dtype) == (np.float32, np.uint8)
    assert 0 <= image.min() < image.max() <= 1
    again = micro_tumours(size, (3, 5))
    assert np.array_equal(image, again[0]) and np.array_equal(labels, again[1])
    assert not np.array_equal(image, micro_tumours(size, (3, 6))[0])


def test_tumours_are_small_apart_and_inside_the_organ() -> None:
    counts, radii = [], []
    for seed in range(60):
        _, labels = micro_tumours(64, seed)
        parts, count = components(labels == 2, np.ones((3, 3)))
        counts.append(count)
        around = binary_dilation(labels == 2) & (labels != 2)
        assert (labels[around] == 1).all()
        radii += [float(((parts == n).sum() / np.pi) ** 0.5) for n in range(1, count + 1)]
    assert min(counts) >= 1 and max(counts) == 5
    assert min(radii) > RADII[0] - 0.6 and max(radii) < RADII[1] + 0.6
    assert np.mean(np.array(radii) < 3) > 0.2


def test_tumours_are_darker_than_the_organ_by_about_two_deviations_of_the_noise() -> None:
    differences, deviations = [], []
    for seed in range(30):
        image, labels = micro_tumours(64, seed)
        differences.append(image[labels == 1].mean() - image[labels == 2].mean())
        deviations.append(image[labels == 1].std())
    assert 0.5 < np.mean(differences) / np.mean(deviations) < 3
    stack, labels = volume(3, 48, 0)
    assert stack.shape == labels.shape == (3, 48, 48)
