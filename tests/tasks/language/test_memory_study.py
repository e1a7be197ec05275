"""AllMem's demonstration: distances are those of the sequence, and a tiny run ends with its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fovea.data.synthetic.recall import IGNORED
from fovea.errors import UsageError
from fovea.tasks.language.lessons import RecallTraining
from fovea.tasks.language.memory_config import MemoryConfig
from fovea.tasks.language.memory_study import OURS, TASK, distances, rivals
from fovea.tasks.run import RunDirectory

TINY = MemoryConfig(
    training=RecallTraining(
        dim=8, vocabulary=64, taught=((24, 2),), asked=((24, 2),), questions=20, steps=2, batch=4, rate=1e-2
    ),
    window=6,
    chunk=4,
)


def test_distances() -> None:
    inputs = torch.tensor([[5, 40, 6, 41, 0, 0, 5, 0, 6, 0]])
    labels = torch.full_like(inputs, IGNORED)
    labels[0, 6], labels[0, 8] = 40, 41
    assert distances(inputs, labels).tolist() == [[0, 0, 0, 0, 0, 0, 5, 0, 5, 0]]


def test_a_tiny_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", quiet=True)
    measured = TASK.run(TINY, run, quiet=True)
    assert next(iter(rivals(TINY))) == OURS
    assert set(measured) == {
        f"{part}_{name.replace(' ', '_')}" for part in ("beyond", "within", "state") for name in rivals(TINY)
    }
    assert all(0 <= value <= 1 for name, value in measured.items() if not name.startswith("state"))
    page = run.report.read_text()
    assert "Recall beyond the window" in page
    assert all(name in page for name in rivals(TINY))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "window=0, chunk=4; they must be at least 1"),
        ({"rate": 0.0}, "rate=0.0; it must be above 0"),
        ({"training": RecallTraining()}, "must be the same one pair"),
    ],
)
def test_refusals(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(TINY, **change)
