"""What Based's claims return: trainings kept between calls, and times of one layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fovea.tasks.language import recall_claims
from fovea.tasks.language.recall import RIVALS


@pytest.mark.parametrize("claim", [recall_claims.frontier, recall_claims.harder])
def test_each_mixer_and_seed_is_measured_once(claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path))
    trained: list[Any] = []

    def measured(layer: Any, training: Any, taught: Any) -> dict[str, Any]:
        trained.append((layer, training.seed))
        assert taught == training.seed
        return {"accuracy": {"asked": 0.9 - training.seed / 10}, "state_bytes": {"64": 5}, "parameters": 7}

    monkeypatch.setattr(recall_claims, "measure", measured)
    monkeypatch.setattr(recall_claims, "lessons", lambda training: training.seed)
    first = claim(quiet=True)
    assert first["attention"]["accuracy"] == {"asked": {"mean": 0.8, "deviation": 0.1, "seeds": [0.9, 0.8, 0.7]}}
    assert first["attention"]["state_bytes"] == {"64": 5}
    assert set(first) == {"chance", *RIVALS}
    assert claim(quiet=True) == first
    assert len(trained) == len(RIVALS) * recall_claims.SEEDS
    json.dumps(first)


def test_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_claims, "READ", (64, 256))
    monkeypatch.setattr(recall_claims, "DECODED", (64, 256))
    monkeypatch.setattr(recall_claims, "STEPS", 3)
    found = recall_claims.cost(quiet=True)
    assert found["based"]["bytes"]["64"] == found["based"]["bytes"]["256"] == 4 * 8 * 153 * 65 + 8
    assert found["attention"]["bytes"]["256"] == 4 * found["attention"]["bytes"]["64"] == 4 * 2 * 256 * 512
    for measured in found.values():
        assert all(seconds > 0 for seconds in (*measured["read_s"].values(), *measured["token_ms"].values()))
