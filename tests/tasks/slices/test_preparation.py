from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fovea.tasks.slices.config import Data
from fovea.tasks.slices.preparation import as_input, augmented, fitted, padded, resolved, scaled, zoomed

DATA = Data(size=32)


def test_intensities() -> None:
    image = np.linspace(-1000, 1000, 2000, dtype=np.float32).reshape(2, 25, 40)
    window = scaled(image, replace(DATA, intensity="window", low=-200, high=200))
    assert (window.min(), window.max()) == (0, 1)
    assert window.flat[1000] == pytest.approx(0.5, abs=0.01)
    spread = scaled(image, replace(DATA, intensity="percentiles"))
    assert (spread.min(), spread.max(), spread.dtype) == (0, 1, np.float32)
    assert scaled(image, replace(DATA, intensity="unit")) is image


def test_auto_is_a_window_for_ct_only() -> None:
    kinds = (("msd", "mri"), ("msd", "ct"), ("lits-nifti", "ct"), ("synapse", "ct"), ("lits-png", "ct"), ("pairs", ""))
    found = [resolved(DATA, *kind).intensity for kind in kinds]  # type: ignore[arg-type]
    assert found == ["percentiles", "window", "window", "unit", "unit", "unit"]
    assert resolved(replace(DATA, intensity="window"), "pairs", "").intensity == "window"


def test_augmentation_turns_both_alike_at_the_published_rates() -> None:
    image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    labels = (image > 0.7).astype(np.uint8)
    turned = kept = 0
    draw = np.random.default_rng(1)
    for _ in range(400):
        new, new_labels = augmented(image, labels, draw)
        inside = new > 0
        assert np.array_equal(new_labels[inside], (new > 0.7)[inside])
        kept += np.array_equal(new, image)
        turned += np.array_equal(np.sort(new.ravel()), np.sort(image.ravel())) and not np.array_equal(new, image)
    assert 0.4 < turned / 400 < 0.6
    assert 0.18 < kept / 400 < 0.35


def test_zoom_and_pad_give_the_size_asked_for() -> None:
    draw = np.random.default_rng(0)
    for shape in ((20, 50), (32, 32), (64, 33)):
        image, labels = np.random.default_rng(1).random(shape).astype(np.float32), np.ones(shape, np.uint8)
        for fit in ("zoom", "pad"):
            a, b = fitted(image, labels, replace(DATA, fit=fit), draw)
            assert a.shape == b.shape == (32, 32)
            assert set(np.unique(b)) <= {0, 1}
        if fit == "pad":
            assert set(np.unique(a)) - {0.0} <= set(np.unique(image))
    assert zoomed(np.eye(4), (7, 9), 0).shape == (7, 9)
    whole, inside = padded(np.ones((2, 5, 40)), 8)
    assert whole.shape == (2, 8, 40) and whole.sum() == 400
    assert whole[(slice(None), *inside)].all()


def test_three_channels_of_any_stack() -> None:
    assert as_input(np.zeros((4, 5), np.float32)).shape == (3, 4, 5)
    assert as_input(np.zeros((2, 4, 5), np.float32)).shape == (2, 3, 4, 5)
