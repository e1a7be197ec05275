"""The relay: what is where, and nothing else that tells."""

from __future__ import annotations

import numpy as np
import pytest

from fovea.data.synthetic.relay import Relay


def test_the_value_stands_at_its_distance_and_nowhere_else() -> None:
    relay = Relay(20, values=5, noise=3)
    distance = np.arange(1, 19)
    tokens, answers = relay.draw(distance, np.random.default_rng(0))
    assert tokens.shape == (18, 20)
    assert relay.vocabulary == 10
    assert (tokens[:, -1] == 6).all()
    for row, away, answer in zip(tokens, distance, answers, strict=True):
        assert row[19 - away] == answer < 5
        assert row[19 - away - 1] == 5
        assert ((row < 5).sum(), (row == 5).sum(), (row == 6).sum()) == (1, 1, 1)


def test_it_is_pure_in_its_source_and_the_values_are_even() -> None:
    relay = Relay(12)
    first, second = (relay.draw(np.full(4000, 3), np.random.default_rng(7)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert (abs(np.bincount(first[1], minlength=8) / 4000 - 1 / 8) < 0.02).all()


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="distance from 0 to 3; it must be 1 to 10"):
        Relay(12).draw(np.array([0, 3]), np.random.default_rng(0))
    with pytest.raises(ValueError, match="length must be at least 3"):
        Relay(2)
