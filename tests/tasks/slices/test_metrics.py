"""Dice and HD95, right and official, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fovea.tasks.slices.metrics import (
    Structure,
    hausdorff_of_foreground,
    overlap,
    per_class,
    recall_by_radius,
    structures,
)

EMPTY = np.zeros((4, 10, 12), bool)


def box(*, at: int = 2, size: int = 3) -> np.ndarray:
    mask = EMPTY.copy()
    mask[1:3, 2 : 2 + size, at : at + size] = True
    return mask


def test_overlap_of_what_is_there() -> None:
    same = overlap(box(), box())
    assert (same.dice, same.hd95) == (1.0, 0.0)
    moved = overlap(box(at=4), box(at=2))
    assert moved.dice == pytest.approx(2 * 6 / 36)
    assert moved.hd95 == 2.0
    assert overlap(box(at=4), box(at=2), spacing=(1, 1, 3)).hd95 == pytest.approx(6.0, rel=0.35)


def test_hd95_pools_both_directions() -> None:
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:30] = True
    prediction = truth.copy()
    prediction[0, 0] = True  # one stray pixel among the surface's many is above the 95th percentile
    found = overlap(prediction, truth)
    assert found.hd95 == 0.0
    prediction[0, :20] = True
    surface = 76  # of a square of side 20
    distances = np.sort([0.0] * 2 * surface + [math.hypot(10, max(0, 10 - c)) for c in range(20)])
    assert overlap(prediction, truth).hd95 == pytest.approx(float(np.percentile(distances, 95)))


def test_a_missed_organ_is_no_zero() -> None:
    diagonal = math.sqrt(4**2 + 10**2 + 12**2)
    for prediction, truth in ((EMPTY, box()), (box(), EMPTY)):
        official, right = (overlap(prediction, truth, empty=e) for e in ("official", "penalise"))
        assert (official.dice, official.hd95) == (0.0, 0.0)
        assert (right.dice, right.hd95) == (0.0, pytest.approx(diagonal))
        left = overlap(prediction, truth, empty="leave-out")
        assert left.dice == 0.0 and math.isnan(left.hd95)
    official, right = (overlap(EMPTY, EMPTY, empty=e) for e in ("official", "penalise"))
    assert (official.dice, official.hd95) == (1.0, 0.0)
    assert math.isnan(right.dice) and math.isnan(right.hd95)
    assert math.isnan(right.iou) and official.iou == 1.0
    assert overlap(box(at=4), box(at=2)).iou == pytest.approx(6 / 30)


def test_classes_and_pixels_that_are_not_known() -> None:
    truth = np.array([[0, 1, 1, 2], [0, 1, 255, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 1], [0, 1, 1, 2]], np.uint8)
    first, second = per_class(prediction, truth, 3)
    assert first.dice == pytest.approx(2 * 3 / (4 + 3))
    assert second.dice == 0.0
    with pytest.raises(ValueError, match="must be the same"):
        overlap(EMPTY, EMPTY[0])


def test_the_official_distance_of_lits_is_of_all_foreground() -> None:
    truth, prediction = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    truth[4, 4], prediction[4, 4], prediction[4, 8] = 1, 2, 1
    assert hausdorff_of_foreground(prediction, truth) == 4.0
    assert hausdorff_of_foreground(np.zeros_like(truth), truth) == 0.0


def test_structures_are_found_one_by_one() -> None:
    truth = np.zeros((20, 20), bool)
    truth[2:6, 2:6] = truth[10:13, 10:13] = truth[16, 16] = True
    prediction = np.zeros_like(truth)
    prediction[2:6, 2:5] = True
    prediction[10, 10] = True
    prediction[18:20, 1] = True
    found, false = structures(prediction, truth)
    assert [structure.found for structure in found] == [True, False, False]
    assert [round(structure.radius**2 * math.pi) for structure in found] == [16, 9, 1]
    assert false == 1
    found, false = structures(np.ones_like(truth), truth)
    assert not any(structure.found for structure in found) and false == 0


def test_one_prediction_over_two_structures_finds_both() -> None:
    truth = np.zeros((12, 12), bool)
    truth[2:6, 2:6] = truth[2:6, 7:11] = True
    prediction = np.zeros_like(truth)
    prediction[2:6, 2:11] = True
    assert [structure.found for structure in structures(prediction, truth)[0]] == [True, True]


def test_recall_by_size() -> None:
    found = [Structure(2.5, True), Structure(2.9, False), Structure(3.0, True), Structure(8.0, False)]
    assert recall_by_radius(found, (0, 3, 4, 5, math.inf)) == {
        "below 3 px": (0.5, 2),
        "3-4 px": (1.0, 1),
        "5 px and more": (0.0, 1),
    }
