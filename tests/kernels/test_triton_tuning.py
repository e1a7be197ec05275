"""The search for tiles: what it tries, and that it remembers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fovea.kernels.problem import Problem
from fovea.kernels.triton import tuning
from fovea.kernels.triton.tiling import Tile, predicted
from fovea.patterns import Neighborhood

pytest.importorskip("triton")


def problem(*, grad: bool = False, device: str = "cuda") -> Problem:
    return Problem(
        Neighborhood(80), (256, 256), (256, 256), 1, 24, 24, 128, 128, 0, False, 0.1, torch.bfloat16,
        torch.device(device), grad,
    )  # fmt: skip


@pytest.mark.parametrize("grad", [False, True])
def test_fastest_of_the_candidates(grad: bool) -> None:
    tried: list[Tile] = []

    def seconds(_: Problem, tile: Tile) -> float:
        tried.append(tile)
        return 1.0 / len(tried)

    found = tuning.search(problem(grad=grad), seconds)
    assert found == tried[-1]
    assert tried[0] == predicted(problem(grad=grad))
    assert len(set(tried)) >= tuning.CANDIDATES


def test_remembers_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path))
    monkeypatch.setattr(tuning, "_machine", lambda device: "a machine")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    timed: list[Tile] = []

    def seconds(_: Problem, tile: Tile) -> float:
        timed.append(tile)
        return float(-len(timed))

    monkeypatch.setattr(tuning, "measure", seconds)
    tuning.forget()
    found = tuning.chosen(problem())
    count = len(timed)
    assert count > 1
    assert tuning.chosen(problem()) == found
    tuning.forget()
    assert tuning.chosen(problem()) == found
    assert len(timed) == count
    monkeypatch.setattr(tuning, "_machine", lambda device: "another machine")
    assert tuning.chosen(problem()) == found
    assert len(timed) == 2 * count
    tuning.forget()


def test_small_problems_are_not_measured() -> None:
    small = problem().but(query_grid=(8, 8), key_grid=(8, 8), pattern=Neighborhood(3))
    assert tuning.chosen(small) == predicted(small)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="runs where Triton interprets")
def test_measuring_runs_the_kernels() -> None:
    small = problem(grad=True, device="cpu").but(
        query_grid=(4, 5), key_grid=(4, 5), pattern=Neighborhood(3), heads=1, kv_heads=1, head_dim=8, value_dim=8,
        bias=True, extra=2,
    )  # fmt: skip
    assert 0 < tuning.measure(small, predicted(small), times=1) < 60
