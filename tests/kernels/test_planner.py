"""The planner takes what should be fastest, by measured prices, and says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fovea
from fovea.kernels import calibration, planner
from fovea.kernels.backend import Backend, Work
from fovea.kernels.calibration import Prices
from fovea.patterns import Full, Neighborhood, PerHead, Window


class Paper(Backend):
    """A backend that exists on paper."""

    def __init__(self, name: str, work: Work, *, missing: str | None = None, refuses: str | None = None) -> None:
        self.name, self._work, self._missing, self._refuses = name, work, missing, refuses  # type: ignore[misc]

    def missing(self) -> str | None:
        return self._missing

    def refuses(self, problem: Any) -> str | None:
        return self._refuses

    def work(self, problem: Any) -> Work:
        return self._work

    def forward(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError

    def backward(self, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the backends there are, and the prices of each by name."""

    def put(backends: list[Paper], prices: dict[str, Prices | None]) -> None:
        monkeypatch.setattr(planner, "backends", lambda: {backend.name: backend for backend in backends})
        monkeypatch.setattr(calibration, "prices", lambda backend, *rest: prices[backend.name])
        planner.forget_plans()

    yield put
    planner.forget_plans()


def test_prices_and_work_decide(shelf: Any) -> None:
    many, few = Work(10, 100.0, 10.0, 1), Work(10, 10.0, 10.0, 3)
    for flop, launch, wanted in ((1.0, 1.0, "few"), (0.01, 10.0, "many")):
        price = Prices(flop, 0.0, launch)
        shelf([Paper("many", many), Paper("few", few)], {"many": price, "few": price})
        plan = fovea.plan("full", (8,))
        assert plan.backend == wanted
        assert plan.chosen.seconds == pytest.approx(price.seconds(many if wanted == "many" else few))


def test_the_others_say_why_not(shelf: Any) -> None:
    work = Work(10, 100.0, 10.0, 1)
    shelf(
        [
            Paper("absent", work, missing="no compiler"),
            Paper("picky", work, refuses="not on Tuesdays"),
            Paper("large", Work(10, 100.0, 10.0, 0, scratch=2.0**40)),
            Paper("idle", Work(10, 100.0, 10.0, 9)),
            Paper("able", work),
        ],
        {"able": Prices(1.0, 1.0, 1.0)},
    )
    plan = fovea.plan("full", (8,))
    assert plan.backend == "able"
    refused = {c.backend: c.refused for c in plan.candidates}
    assert refused["absent"] == "no compiler"
    assert refused["picky"] == "not on Tuesdays"
    assert "1024.0 GiB of temporary memory" in str(refused["large"])
    assert "in no respect less than able" in str(refused["idle"])
    text = plan.explain()
    assert all(str(reason) in text for reason in refused.values() if reason)


def test_unmeasured_backends_come_last(shelf: Any) -> None:
    shelf(
        [Paper("unknown", Work(1, 1.0, 9.0, 1)), Paper("known", Work(1, 2.0, 8.0, 1))],
        {"unknown": None, "known": Prices(1.0, 1.0, 1.0)},
    )
    assert [c.backend for c in fovea.plan("full", (8,)).candidates] == ["known", "unknown"]


def test_nobody_can(shelf: Any) -> None:
    shelf([Paper("absent", Work(1, 1.0, 1.0, 1), missing="no compiler")], {})
    with pytest.raises(ValueError, match="no backend can compute full: absent: no compiler"):
        fovea.plan("full", (8,))


def test_local_attention_is_never_dense() -> None:
    for grad in (False, True):
        plan = fovea.plan(Neighborhood(7), (96, 96), heads=2, head_dim=16, grad=grad)
        assert plan.backend != "reference"
        assert plan.chosen.work is not None
        assert plan.chosen.work.pairs < 4 * 2 * plan.problem.pairs


def test_what_was_planned_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(pattern: str) -> planner.Plan:
        return fovea.plan(pattern, [56, 56], heads=4, head_dim=32)

    seen = planned("neighborhood:window=7")
    planner.choose(seen.problem, "auto")

    def rank(_: object) -> None:
        raise AssertionError("planned again")

    monkeypatch.setattr(planner, "rank", rank)
    assert planned("neighborhood:window=7") is seen
    assert planner.choose(seen.problem, "auto").name == seen.backend
    with pytest.raises(AssertionError, match="planned again"):
        planned("neighborhood:window=9")


def test_plans_are_forgotten_with_the_prices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path))
    seen = fovea.plan("window:size=8", (16, 16))
    planner.forget()
    assert fovea.plan("window:size=8", (16, 16)) is not seen
    planner.forget()


def test_a_plan_is_plain_values() -> None:
    plan = fovea.plan("neighborhood:window=3", (8, 9), batch=2, heads=4, kv_heads=2, head_dim=8, extra=3, bias=True)
    facts = json.loads(json.dumps(plan.to_dict()))
    assert facts["pairs"] == 2 * 4 * (72 * 9 + 72 * 3)
    assert facts["dense_pairs"] == 2 * 4 * 72 * (72 + 3)
    assert facts["backend"] in [row["backend"] for row in facts["candidates"]]


def test_one_plan_a_group_of_heads() -> None:
    plan = fovea.plan(PerHead((Full(), Window(2), Full())), (8,), heads=3)
    assert [(part.problem.pattern, part.problem.heads) for part in (plan, *plan.also)] == [(Full(), 2), (Window(2), 1)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3, "kv_heads": 2}, "heads=3, kv_heads=2; kv_heads must divide heads"),
        ({"dtype": torch.int8}, "dtype=torch.int8; it may be"),
        ({"grid": (4, 4, 4, 4)}, "grid"),
        ({"head_dim": 0}, "head_dim=0; it must be an integer of at least 1"),
        ({"batch": 1.5}, "batch=1.5"),
        ({"device": "abacus"}, "device='abacus'; it must be a device that PyTorch can use here"),
        ({"pattern": 7}, "pattern=7; it must be a pattern or its text"),
        ({"pattern": "neighborhood:window=9"}, "window"),
        ({"pattern": PerHead((Full(), Full()))}, "heads=1"),
        ({"pattern": "blocks:size=2,terms=local(1)", "grid": 8, "bias": True}, "takes no relative bias"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fovea.plan(**({"pattern": "full", "grid": (8, 8)} | changes))
