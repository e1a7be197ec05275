from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score

from fovea.tasks.spectral.metrics import confusion, scores


def test_figures_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 5, 400)
    estimate = np.where(generator.random(400) < 0.7, truth, generator.integers(0, 5, 400))
    found = scores(confusion(truth, estimate, 5))
    assert found.oa == pytest.approx(100 * accuracy_score(truth, estimate))
    assert found.aa == pytest.approx(100 * balanced_accuracy_score(truth, estimate))
    assert found.kappa == pytest.approx(100 * cohen_kappa_score(truth, estimate))
    assert found.untested == ()


def test_a_class_without_tested_pixels_is_left_out_and_named() -> None:
    found = scores(confusion(np.array([0, 0, 2]), np.array([0, 1, 2]), 4))
    assert found.untested == (1, 3)
    assert found.aa == pytest.approx(75)
    assert np.isnan(found.of_class[[1, 3]]).all()


def test_edges() -> None:
    assert scores(np.array([[5, 0], [0, 0]])).kappa == 100
    with pytest.raises(ValueError, match="no pixel was tested"):
        scores(np.zeros((2, 2)))
