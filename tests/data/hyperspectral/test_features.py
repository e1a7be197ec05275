from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fovea.data.hyperspectral.features import Components, fit, standardised_patches
from fovea.data.hyperspectral.patches import Patches
from fovea.errors import UserError


@pytest.fixture
def spectra() -> np.ndarray:
    generator = np.random.default_rng(0)
    return (
        generator.standard_normal((60, 5)) @ generator.standard_normal((5, 12)) * np.linspace(1, 9, 12) + 100
    ).astype(np.float32)


@pytest.mark.parametrize("scaled", [True, False])
def test_components_are_white_and_their_signs_fixed(spectra: np.ndarray, scaled: bool) -> None:
    found = fit(spectra, 4, scaled=scaled)
    np.testing.assert_allclose(np.cov(found(spectra).T), np.eye(4), atol=1e-3)
    loadings = found.matrix * (spectra.std(0)[:, None] if scaled else 1)
    assert (np.take_along_axis(loadings, np.abs(loadings).argmax(0)[None], 0) > 0).all()
    flipped = fit(spectra[::-1], 4, scaled=scaled)
    np.testing.assert_allclose(found.matrix, flipped.matrix, atol=1e-6)


def test_without_whitening_order_and_proportion_stay(spectra: np.ndarray) -> None:
    variance = fit(spectra, 4, whiten=False)(spectra).var(0, ddof=1)
    assert (np.diff(variance) < 0).all()
    assert variance.mean() == pytest.approx(1, abs=1e-3)


def test_bands_are_bands(spectra: np.ndarray) -> None:
    found = fit(spectra, 3, "bands")
    used = np.abs(found.matrix) > 0
    assert (used.sum(0) == 1).all()
    assert used.any(1).sum() == 3
    assert fit(spectra, 12, "bands").count == 12


def test_components_survive_json(spectra: np.ndarray) -> None:
    found = fit(spectra, 4)
    again = Components.from_dict(json.loads(json.dumps(found.to_dict())))
    np.testing.assert_array_equal(again(spectra), found(spectra))


def test_what_cannot_be_fitted_or_applied(spectra: np.ndarray) -> None:
    with pytest.raises(UserError, match="network.in_channels=13; the scene has 12 bands"):
        fit(spectra, 13)
    with pytest.raises(UserError, match=r"4 pixels allow at most 3 components: .*features.fit=all"):
        fit(spectra[:4], 4)
    with pytest.raises(UserError, match="the scene has 11 bands; the components were fitted to spectra of 12 bands"):
        fit(spectra, 4)(spectra[:, :11])


def test_flat_patches_stay_finite() -> None:
    out = standardised_patches(torch.ones(2, 3, 5, 5))
    assert out.isfinite().all()
    assert not out.any()


@pytest.mark.parametrize("side", [4, 5])
def test_patches_have_their_pixel_in_the_middle_and_zeros_outside(side: int) -> None:
    image = np.arange(1, 13, dtype=np.float32).reshape(3, 4, 1)
    patches = Patches(image, side)(np.arange(12))
    assert patches.shape == (12, 1, side, side)
    np.testing.assert_array_equal(patches[:, 0, side // 2, side // 2], np.arange(1, 13))
    assert patches[0, 0, : side // 2].sum() == 0
