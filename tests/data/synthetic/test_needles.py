"""Needles: where they stand, what is asked, and that nothing else tells the answer."""

from __future__ import annotations

import numpy as np
import pytest

from fovea.data.synthetic.needles import Needles, passkey


@pytest.mark.parametrize("needles", [1, 4])
def test_the_answer_stands_behind_the_marker_that_is_asked(needles: int) -> None:
    kind = Needles(length=40, needles=needles)
    found = kind.uniform(500, np.random.default_rng(0))
    assert found.tokens.shape == (500, 40)
    for tokens, answer, distance in zip(*found, strict=True):
        places = np.flatnonzero(tokens[:-1] < kind.markers)
        assert len(places) == len(set(tokens[places])) == needles
        asked = places[tokens[places] == tokens[-1]]
        assert asked.tolist() == [40 - 2 - distance]
        assert tokens[asked + 1] == answer >= kind.markers
    assert found.distance.min() == 1 and found.distance.max() == kind.farthest


def test_distances_are_as_given_and_draws_repeat() -> None:
    kind = Needles(length=12)
    distance = np.arange(1, 11)
    one, other = (kind.draw(distance, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one.tokens, other.tokens) and np.array_equal(one.distance, distance)
    assert not np.array_equal(one.tokens, kind.draw(distance, np.random.default_rng(4)).tokens)


def test_values_are_as_common_as_noise() -> None:
    found = Needles(length=30, vocabulary=8, markers=2).uniform(20_000, np.random.default_rng(0))
    shares = np.bincount(found.answers, minlength=8)[2:] / 20_000
    assert shares == pytest.approx(np.full(6, 1 / 6), abs=0.015)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 2}, "length must be at least 3"),
        ({"length": 9, "needles": 5}, "needles must be 1 to markers=4"),
        ({"length": 9, "vocabulary": 5}, "two tokens beside the markers"),
    ],
)
def test_what_it_refuses(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Needles(**options)


def test_distances_out_of_range() -> None:
    with pytest.raises(ValueError, match="it must be 1 to 10"):
        Needles(length=12).draw(np.array([11]), np.random.default_rng(0))


def test_needles_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="no room"):
        Needles(length=9, needles=4).draw(np.full(50, 4), np.random.default_rng(0))


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_passkey(depth: float) -> None:
    text, key = passkey(1000, depth, np.random.default_rng(0))
    assert 950 <= len(text) <= 1000 and len(key) == 5
    assert text.count(key) == 1 and text.endswith("The pass key is ")
    assert text.index(key) / len(text) == pytest.approx(depth, abs=0.1)
    with pytest.raises(ValueError, match="length=50"):
        passkey(50, depth, np.random.default_rng(0))
