"""Both conventions for structures that are missing."""

from __future__ import annotations

from math import inf, isnan

import numpy as np
import pytest

from fovea.tasks.segmentation.metrics import Measured, measure, summary


def test_missing_structures() -> None:
    """Found, missed, invented, rightly absent."""
    box = np.zeros((12, 10, 9), np.bool_)
    box[3:7, 3:7, 3:7] = True
    shifted, none = np.roll(box, 2, 0), np.zeros_like(box)
    found = measure(np.stack([shifted, none, box, none]), np.stack([box, box, none, none]), (1.0, 1.0, 2.0))
    diagonal = float(np.linalg.norm([12, 10, 18]))
    assert found[0].dice == pytest.approx(0.5) and found[0].hd95 == pytest.approx(2.0)
    assert (found[0].dice_server, found[0].hd95_server) == (found[0].dice, found[0].hd95)
    assert found[1].dice == 0 and (found[1].hd95 == inf or isnan(found[1].hd95))
    assert (found[1].dice_server, found[1].hd95_server, found[1].missed) == (0, pytest.approx(diagonal), True)
    assert isnan(found[2].dice)
    assert (found[2].dice_server, found[2].hd95_server, found[2].missed) == (0, pytest.approx(diagonal), False)
    assert isnan(found[3].dice) and isnan(found[3].hd95)
    assert (found[3].dice_server, found[3].hd95_server, found[3].missed) == (1, 0, False)


def test_the_diagonal_of_brats_is_the_server_s() -> None:
    assert float(np.linalg.norm([240, 240, 155])) == pytest.approx(373.13, abs=0.01)


def test_means_leave_out_what_is_not_there() -> None:
    nan = float("nan")
    cases = [
        [Measured(0.8, 2.0, 0.8, 2.0, False), Measured(nan, nan, 1.0, 0.0, False)],
        [Measured(0.0, inf, 0.0, 50.0, True), Measured(nan, nan, 0.0, 50.0, False)],
    ]
    found = summary(cases, ["TC", "class 2"])
    assert found["dice_tc"] == pytest.approx(0.4) and found["hd95_tc"] == 26 and found["hd95_found_tc"] == 2
    assert "dice_class_2" not in found and found["dice_server_class_2"] == 0.5
    assert found["missed_tc"] == 1 and found["dice"] == pytest.approx(0.4) and found["dice_server"] == 0.45
