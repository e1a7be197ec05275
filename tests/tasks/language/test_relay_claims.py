"""What PowerAttention's claims return: numbers of the patterns' own, and of small trainings kept between calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fovea.tasks.language import relay_claims


def test_reach_is_that_of_the_paper_and_ours_needs_fewer_layers() -> None:
    found = relay_claims.reach(quiet=True)
    assert found["power"] == {
        "key_blocks": 10,
        "reached": [10, 35, 75, 110, 126, 128, 128, 128],
        "complete_after": 6,
        "cache_blocks": None,
    }
    assert found["one power a layer"]["key_blocks"] == 7
    assert found["one power a layer"]["complete_after"] == 6
    assert found["searched"]["complete_after"] == found["searched, window of 3"]["complete_after"] == 4
    assert {name for name, measured in found.items() if measured["complete_after"] is None} == {
        "sliding", "dilated", "LongNet"
    }  # fmt: skip
    json.dumps(found)


def test_each_pattern_and_seed_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path))
    asked: list[Any] = []

    def measured(layers: Any, kind: Any, training: Any) -> dict[str, Any]:
        asked.append((layers, training.seed))
        near = 1.0 - training.seed / 10
        return {"inside": near, "outside": 0.1, "reached": 0.5, "accuracy": [near] * 5 + [0.1] * 5}

    monkeypatch.setattr(relay_claims, "measure", measured)
    first = relay_claims.relay(quiet=True)
    assert first["power"]["key_blocks"] == 6
    assert first["power"]["inside"] == {"mean": 0.9, "deviation": 0.1, "seeds": [1.0, 0.9, 0.8]}
    assert first["power"]["bands"] == [0.9, 0.9, 0.5, 0.1, 0.1]
    assert len(asked) == 8 * relay_claims.SEEDS
    assert relay_claims.relay(quiet=True) == first
    assert len(asked) == 8 * relay_claims.SEEDS


def test_exponents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_claims, "LENGTHS", (512, 1024, 2048))
    found = relay_claims.slopes(quiet=True)
    assert found["full"]["exponent_of_pairs"] == pytest.approx(2, abs=0.01)
    assert all(found[name]["exponent_of_pairs"] < 1.7 for name in ("sliding", "power", "one power"))
    assert all(seconds > 0 for name in ("full", "sliding", "power", "one power") for seconds in found[name]["seconds"])
    assert relay_claims._exponent((10, 100, 1000), [3.0, 30.0, 300.0]) == pytest.approx(1)
