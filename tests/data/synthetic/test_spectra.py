from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fovea.data.synthetic.spectra import Difficulty, class_spectra, field_map, scene, spectra_on


def test_scenes_are_functions_of_the_seed() -> None:
    first, again, other = (scene((30, 32), 4, 20, 12, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.cube, again.cube)
    assert not np.array_equal(first.cube, other.cube)
    assert first.cube.shape == (30, 32, 20)
    assert np.isfinite(first.cube).all()
    assert set(np.unique(first.labels)) == {0, 1, 2, 3, 4}


def test_every_class_has_several_fields() -> None:
    from scipy import ndimage

    labels = field_map((72, 72), 8, 48, 0)
    assert all(ndimage.label(labels == kind)[1] >= 2 for kind in range(1, 9))


def test_difficulties_do_what_they_say() -> None:
    labels = field_map((40, 40), 4, 16, 0)
    clean = Difficulty(mixing=0.01, fields=0, rows=0, light=0, noise=0)
    cube = spectra_on(labels, 24, difficulty=clean).cube
    for kind in range(5):
        assert cube[labels == kind].std(0).max() < 1e-5

    def spread(**words: float) -> float:
        made = spectra_on(labels, 24, difficulty=replace(clean, **words)).cube
        return float(np.mean([made[labels == kind].std(0).mean() for kind in range(1, 5)]))

    for words in ({"mixing": 1.5}, {"fields": 0.5}, {"rows": 0.5}, {"light": 0.3}, {"noise": 1.0}):
        assert spread(**words) > 0.002, words


def test_families_are_alike() -> None:
    curves = class_spectra(9, 64, Difficulty(families=3, likeness=0.9), np.random.default_rng(0))
    likeness = np.corrcoef(curves)
    assert likeness[0, 3] > 0.7
    assert likeness[0, 3] > likeness[0, 1] + 0.2
    assert np.abs(np.diff(curves)).max() < 0.1


def test_real_label_maps_can_be_filled(shared_data) -> None:
    from fovea.data.hyperspectral.variables import choose

    labels = choose(shared_data / "hsi_label_maps" / "Indian_pines_gt.mat", 2).read().astype(np.int64)
    made = spectra_on(labels, 16)
    assert made.cube.shape == (145, 145, 16)
    assert len(made.classes) == 16
    assert made.labels is labels
    assert made.cube.mean() == pytest.approx(0.45, abs=0.15)
