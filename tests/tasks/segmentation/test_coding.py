"""Label maps to regions and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fovea.errors import UserError
from fovea.tasks.segmentation.coding import coded


@pytest.mark.parametrize(
    ("coding", "codes", "regions"),
    [
        ("brats", (0, 1, 2, 4), ["010", "010", "010"]),
        ("msd-brats", (0, 1, 2, 3), []),
    ],
)
def test_round_trip(coding: str, codes: tuple[int, ...], regions: list[str]) -> None:
    labels = np.random.default_rng(0).choice(codes, (4, 5, 6)).astype(np.uint8)
    found = coded(coding, 3)  # type: ignore[arg-type]
    assert found.names == ("TC", "WT", "ET") and found.regions
    masks = found.truth(labels, "x")
    assert (masks[1] == (labels > 0)).all()
    assert not (masks[2] & ~masks[0]).any() and not (masks[0] & ~masks[1]).any()  # ET in TC in WT
    assert (found.label_map(masks) == labels).all()


def test_brats_regions() -> None:
    found = coded("brats", 3).target(np.array([[[0, 1, 2, 4]]], np.uint8), "x")
    assert found[:, 0, 0].tolist() == [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]]
    found = coded("msd-brats", 3).target(np.array([[[0, 1, 2, 3]]], np.uint8), "x")
    assert found[:, 0, 0].tolist() == [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]


def test_classes() -> None:
    found = coded("classes", 3, {0: "background", 1: "Anterior", 2: "Posterior"})
    assert found.names == ("Anterior", "Posterior") and not found.regions
    labels = np.array([[[0, 1, 2]]], np.uint8)
    assert found.target(labels, "x").shape == (1, 1, 1, 3)
    assert (found.label_map(found.truth(labels, "x")) == labels).all()
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])[:, None, None]
    assert (found.label_map(found.predicted(logits)) == labels).all()
    assert coded("classes", 3).names == ("class 1", "class 2")


def test_regions_are_above_one_half() -> None:
    logits = torch.tensor([[-1.0, 0.1], [1.0, 0.1], [0.0, -3.0]])[:, None, None]
    assert coded("brats", 3).predicted(logits)[:, 0, 0].tolist() == [[False, True], [True, True], [False, False]]


def test_strange_labels_are_refused() -> None:
    with pytest.raises(UserError, match="case 7: label 3 is out of range; coding brats has 0, 1, 2, 4"):
        coded("brats", 3).target(np.full((1, 1, 1), 3, np.uint8), "case 7")
    with pytest.raises(UserError, match="label 3 is out of range; coding classes has 0, 1, 2"):
        coded("classes", 3).truth(np.full((1, 1, 1), 3, np.uint8), "x")
    with pytest.raises(UserError, match="the data have 2 classes with the background; network.out_channels=3"):
        coded("classes", 3, {0: "background", 1: "organ"})
