"""The comparison at a size that says nothing: every student is asked what it should be, and the teacher comes back."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from fovea.data.synthetic.recall import IGNORED
from fovea.steer.allmem_claims import STUDENTS, Toy, beyond, costs, recall, text

TINY = Toy(
    dim=8, vocabulary=64, length=24, pairs=2, teacher_steps=2, student_steps=2, batch=2, window=6, sinks=1, chunk=4,
    windows=(4, 8), sinks_drawn=(0, 2), chunks=(3, 5), unseen=3, distilled=12, questions=40,
)  # fmt: skip


def test_questions_beyond_the_window() -> None:
    inputs = torch.tensor([[5, 40, 6, 41, 0, 0, 5, 0, 6, 0]])
    labels = torch.full_like(inputs, IGNORED)
    labels[0, 6], labels[0, 8] = 40, 41
    assert beyond(inputs, labels, 5, 0).nonzero().tolist() == [[0, 6], [0, 8]]
    assert beyond(inputs, labels, 6, 0).nonzero().tolist() == []
    assert beyond(inputs, labels, 5, 2).nonzero().tolist() == [[0, 8]]
    assert beyond(inputs, labels, 5, 3).nonzero().tolist() == []


def test_recall() -> None:
    found = recall(TINY, quiet=True)
    assert set(found) == {"teacher", *STUDENTS}
    keys = {"kl", "accuracy_beyond", "kl_unseen_window", "accuracy_beyond_unseen_window"}
    assert set(found["window"]) == keys
    assert set(found["window, AllMem"]) == keys | {"kl_memory_alone", "accuracy_beyond_memory_alone"}
    assert all(0 <= found[name]["accuracy_beyond"] <= 1 for name in found)
    again = recall(TINY, (0, 1), quiet=True)
    assert again["window"]["kl"]["seeds"][0] == found["window"]["kl"]


def test_text(tmp_path) -> None:
    (tmp_path / "text").write_bytes(b"what is said once, is said again. " * 40)
    found = text(tmp_path / "text", Toy(**{**vars(TINY), "vocabulary": 256}), quiet=True)
    assert 0 < found["teacher"]["bits_per_byte"] < 16
    assert found["window, AllMem"]["kl"] >= 0


def test_costs() -> None:
    found = costs()
    kept = [each["kept"] for each in found.values()]
    assert kept[1] == kept[-1]
    ratios = [each["operations"] for each in found.values()]
    assert ratios == sorted(ratios)
