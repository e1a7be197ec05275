"""Splits hold every class, keep what is tested apart, and tell how much they leak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.data.hyperspectral.splits import Split, disjoint_split, random_split
from fovea.errors import UserError


def fields(seed: int, classes: int = 4, size: tuple[int, int] = (30, 34)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, classes + 1, (size[0] // 5, -(-size[1] // 5)))
    coarse.ravel()[:classes] = np.arange(1, classes + 1)
    coarse.ravel()[-classes:] = np.arange(1, classes + 1)
    return coarse.repeat(5, 0).repeat(5, 1)[: size[0], : size[1]].astype(np.int64)


def apart(split: Split) -> None:
    everything = np.concatenate([split.train, split.validation, split.test])
    assert len(np.unique(everything)) == len(everything)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.005, 0.5), st.floats(0, 0.5))
def test_random_splits(seed: int, share: float, validation: float) -> None:
    labels = fields(seed)
    split = random_split(labels, share, validation=validation, seed=seed)
    apart(split)
    assert len(split.train) + len(split.validation) + len(split.test) == (labels > 0).sum()
    flat = labels.ravel()
    for number in range(1, 5):
        total = (flat == number).sum()
        assert (flat[split.known] == number).sum() == min(max(1, round(share * total)), total - 1)
        assert (flat[split.train] == number).any()


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([3, 5, 6]), st.sampled_from([5, 8]))
def test_disjoint_splits(seed: int, patch: int, block: int) -> None:
    labels = fields(seed)
    split = disjoint_split(labels, 0.1, patch=patch, block=block, area=0.2, validation=0.2, seed=seed)
    apart(split)
    assert set(labels.ravel()[split.known]) == {1, 2, 3, 4}
    rows, columns = np.unravel_index(split.known, labels.shape)
    test_rows, test_columns = np.unravel_index(split.test, labels.shape)
    distance = np.maximum(abs(rows[:, None] - test_rows), abs(columns[:, None] - test_columns))
    assert distance.min() > patch // 2
    assert split.leakage(patch).pixel == 0


def test_seeds_repeat_and_differ() -> None:
    labels = fields(0)
    for make in (
        lambda seed: random_split(labels, 0.1, validation=0.2, seed=seed),
        lambda seed: disjoint_split(labels, 0.1, patch=3, block=8, area=0.2, validation=0.2, seed=seed),
    ):
        first, again, other = make(0), make(0), make(1)
        assert np.array_equal(first.train, again.train)
        assert not np.array_equal(first.train, other.train)


def test_leakage_is_what_counting_says() -> None:
    split = Split(np.array([0]), np.array([1]), np.arange(2, 12), (1, 12))
    leak = split.leakage(3)
    assert leak.pixel == pytest.approx(1 / 10)  # only pixel 2 has a known pixel beside it
    assert leak.patch == pytest.approx(2 / 10)  # the patch of pixel 1 reaches to 2, that of 3 from 2
    assert leak.area == pytest.approx((2 / 3 + 1 / 3) / 10)


def test_rare_classes() -> None:
    labels = np.zeros((10, 10), np.int64)
    labels[0, :4], labels[5:] = 1, 2
    split = random_split(labels, 0.02, validation=0.5, seed=0)
    assert (labels.ravel()[split.train] == 1).sum() == 1
    labels[0, 1:4] = 0
    with pytest.raises(UserError, match="class 1 has 1 labelled pixel; it needs 2"):
        random_split(labels, 0.02, validation=0.1, seed=0)


def test_scenes_too_small_for_blocks() -> None:
    with pytest.raises(UserError, match="split.block=50; the labelled pixels lie in 1 such block"):
        disjoint_split(fields(0), 0.1, patch=3, block=50, area=0.2, validation=0, seed=0)
    with pytest.raises(UserError, match="no pixel is left to test"):
        disjoint_split(fields(0), 0.1, patch=61, block=8, area=0.2, validation=0, seed=0)
