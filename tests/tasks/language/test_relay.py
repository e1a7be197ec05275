"""The relay's measure: a model learns what its pattern reaches, and guesses beyond."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fovea.data.synthetic.relay import Relay
from fovea.models.language_config import Layer
from fovea.patterns import Causal, SlidingWindow
from fovea.tasks.language.relay import RelayTraining, by_band, measure, pattern_of, rivals


def test_within_reach_it_is_learned_and_beyond_it_is_guessed() -> None:
    window = (Layer("window", {"heads": 1, "window": 6}),) * 2
    relay = Relay(24, values=4)
    training = RelayTraining(dim=32, hidden=0, steps=120, batch=64, rate=1e-2, growth=0.3, asked=32)
    measured = measure(window, relay, training)
    assert measured["steps"] == [1] * 5 + [2] * 5 + [-1] * 12
    assert measured["reached"] == pytest.approx(10 / 22)
    assert np.mean(measured["accuracy"][:5]) > 0.9
    assert measured["outside"] == pytest.approx(0.25, abs=0.08)
    assert measured["pairs"] == sum(min(i + 1, 6) for i in range(24))
    assert json.loads(json.dumps(measured)) == measured
    assert by_band(measured, 2)[0] == pytest.approx(np.mean(measured["accuracy"][:11]))


def test_rivals_see_about_equally_many_blocks() -> None:
    made = rivals(2)
    blocks = {name: len(pattern_of(layers[-1]).row(15)) for name, layers in made.items() if name != "full"}  # type: ignore[attr-defined]
    assert blocks == {
        "sliding": 6, "dilated": 6, "longnet": 4, "strided": 6, "power": 6, "one-power": 5, "searched": 6
    }  # fmt: skip
    assert pattern_of(made["full"][0]) == Causal()
    assert pattern_of(Layer("window", {"window": 4})) == SlidingWindow(3)
    with pytest.raises(ValueError, match="no pattern whose reach is known"):
        pattern_of(Layer("window", {"window": 4, "sinks": 1}))
