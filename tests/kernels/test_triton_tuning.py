"""The search for tiles: what it tries, and that it remembers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fovea.kernels.planner import Candidate, Plan
from fovea.kernels.problem import Problem
from fovea.kernels.registry import backends
from fovea.kernels.triton import tuning
from fovea.kernels.triton.tiling import Tile, predicted
from fovea.patterns import Neighborhood

pytest.importorskip("triton")


def problem(*, grad: bool = False, device: str = "cuda") -> Problem:
    return Problem(
        Neighborhood(80), (256, 256), (256, 256), 1, 24, 24, 128, 128, 0, False, 0.1, torch.bfloat16,
        torch.device(device), grad,
    )  # fmt: skip


class Trial(tuning.Trial):
    """Stands in for measurements: every tile is faster than those before it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.tried: list[Tile] = []
        self.prepared: list[Tile] = []

    def prepare(self, tiles: list[Tile]) -> None:
        self.prepared = tiles

    def seconds(self, tile: Tile, times: int = 5) -> float:
        self.tried.append(tile)
        return 1.0 / len(self.tried)


@pytest.mark.parametrize("grad", [False, True])
def test_fastest_of_the_candidates(grad: bool) -> None:
    trial = Trial(problem(grad=grad))
    found, seconds = tuning.search(problem(grad=grad), trial)
    assert found == trial.tried[-1]
    assert seconds == 1.0 / len(trial.tried)
    assert trial.tried[0] == predicted(problem(grad=grad))
    assert len(set(trial.tried)) >= tuning.CANDIDATES

    def compiled_in(tiles: list[Tile]) -> set[object]:
        sides = [(t.query_tile, t.key_tile, t.warps, t.stages) for t in tiles]
        return {*sides, *((t.grad_query_tile, t.grad_key_tile, t.grad_warps, t.grad_stages) for t in tiles)}

    assert compiled_in(trial.tried) <= compiled_in(trial.prepared)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Trial]]:
    """An empty cache folder and a machine with a device; the trials that were made."""
    made: list[Trial] = []

    def trial(posed: Problem) -> Trial:
        made.append(Trial(posed))
        return made[-1]

    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "_machine", lambda device: "a machine")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(tuning, "Trial", trial)
    tuning.forget()
    yield made
    tuning.forget()


def test_remembers_what_it_measured(machine: list[Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuning.remembered(problem()) is None
    found = tuning.chosen(problem())
    assert tuning.chosen(problem()) == found
    tuning.forget()
    assert tuning.chosen(problem()) == found
    assert len(machine) == 1
    monkeypatch.setattr(tuning, "_machine", lambda device: "another machine")
    tuning.forget()
    assert tuning.chosen(problem()) == found
    assert len(machine) == 2


def test_plans_show_what_was_measured_beside_what_was_predicted(
    machine: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning.chosen(problem())
    seconds = tuning.remembered(problem())
    assert seconds is not None
    assert seconds == pytest.approx(1.0 / len(machine[0].tried))
    assert tuning.remembered(problem().but(heads=20, kv_heads=20)) == pytest.approx(seconds * 20 / 24)
    triton = backends()["triton"]
    assert triton.measured(problem()) == seconds
    candidate = Candidate("triton", triton.work(problem()), 0.5, None, triton.measured(problem()))
    made = Plan(problem(), "triton", (candidate,))
    assert made.to_dict()["candidates"][0]["measured_seconds"] == seconds
    assert "500 ms" in made.explain()
    assert f"measured {seconds * 1e3:.3g} ms" in made.explain()


def test_small_problems_are_not_measured() -> None:
    small = problem().but(query_grid=(8, 8), key_grid=(8, 8), pattern=Neighborhood(3))
    assert tuning.chosen(small) == predicted(small)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="runs where Triton interprets")
def test_measuring_runs_the_kernels() -> None:
    small = problem(grad=True, device="cpu").but(
        query_grid=(4, 5), key_grid=(4, 5), pattern=Neighborhood(3), heads=1, kv_heads=1, head_dim=8, value_dim=8,
        bias=True, extra=2,
    )  # fmt: skip
    trial = tuning.Trial(small)
    trial.prepare([predicted(small)])
    assert 0 < trial.seconds(predicted(small), times=1) < 60
