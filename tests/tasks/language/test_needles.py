"""Needles as a task: what each arm is, that lessons teach, and what a measurement holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fovea.data.synthetic.needles import Needles
from fovea.tasks.language import needles
from fovea.tasks.language.needles import ARMS, Finder, NeedleTraining, covered, examine, measure, train

SHORT = NeedleTraining(length=48, dim=16, sw_index=1, steps=2, batch=4, start=8, asked=16)


def test_a_window_sees_nothing_before_it_and_the_others_do() -> None:
    tokens = torch.from_numpy(Needles(48).uniform(4, np.random.default_rng(0)).tokens)
    other = tokens.clone()
    other[:, :20] = torch.randint(4, 64, (4, 20))
    for arm in ARMS:
        torch.manual_seed(0)
        network = Finder(arm, 64, SHORT)
        assert torch.equal(network(tokens), network(other)) == (arm == "window"), arm


def test_full_attention_sees_every_token() -> None:
    network = Finder("full", 64, SHORT)
    x = network.mixed(torch.randint(4, 64, (1, 48))).detach().requires_grad_()
    network.attention(x, last=1).sum().backward()
    assert x.grad is not None and (x.grad.abs().sum(-1) > 0).all()


def test_a_frozen_search_is_not_taught() -> None:
    network, _ = train("frozen search", SHORT)
    torch.manual_seed(SHORT.seed)
    untaught = Finder("frozen search", 64, SHORT)
    assert torch.equal(network.attention.search_query.weight, untaught.attention.search_query.weight)
    assert not torch.equal(network.attention.query.weight, untaught.attention.query.weight)
    assert not torch.equal(network.attention.search_query.weight * 8**0.5, network.attention.query.weight)


def test_lessons_teach() -> None:
    training = replace(SHORT, length=16, start=16, dim=64, sw_index=3, steps=240, batch=32, rate=5e-3, asked=64)
    network, _ = train("superlinear", training)
    assert np.mean(examine(network, 16, training, bands=2)) > 0.3  # a guess: 1 / 60


def test_lessons_grow() -> None:
    assert train("full", replace(SHORT, steps=5, enough=-1.0))[1] == 48
    assert train("full", replace(SHORT, steps=5, enough=1.0))[1] == 8


def test_spans_of_the_last_token_are_what_is_covered() -> None:
    wide, narrow = (
        Finder("superlinear", 64, replace(SHORT, backward_factor=factor, forward_factor=factor))
        for factor in (100.0, 0.01)
    )
    assert covered(wide, 48, SHORT) == 1
    assert covered(narrow, 48, SHORT) < 1
    start, end, gate = narrow.spans(torch.randint(4, 64, (3, 48)))
    assert start.shape == end.shape == gate.shape == (3, 2, 2)
    torch.testing.assert_close(gate.sum(-1), torch.ones(3, 2))
    assert (end <= 47 - narrow.window).all()


def test_a_measurement_holds_every_arm() -> None:
    found = measure(SHORT, longer=(64,))
    json.dumps(found)
    assert set(found["arms"]) == set(ARMS)
    learned = {arm: of["parameters"] for arm, of in found["arms"].items()}
    assert learned["superlinear"] == learned["full"] == learned["window"]
    assert learned["superlinear"] > learned["no accumulator"]
    for arm, of in found["arms"].items():
        assert set(of["lengths"]) == {"48", "64"}
        for at in of["lengths"].values():
            assert len(at["accuracy"]) == 8
            assert ("covered" in at) == (arm not in ("full", "window"))


def test_a_claim_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path))
    monkeypatch.setattr(needles, "CLAIM", SHORT)
    monkeypatch.setattr(needles, "SEEDS", (0,))
    monkeypatch.setattr(needles, "LONGER", ())
    found = needles.by_distance(quiet=True)
    json.dumps(found)
    monkeypatch.setattr(needles, "train", lambda *_: pytest.fail("trained again"))
    assert needles.by_distance(quiet=True) == found
    assert found["superlinear, 48 tokens"]["deviation"] is None
