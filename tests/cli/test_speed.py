from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fovea.kernels import registry
from fovea.kernels.reference import Reference


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is measured for the planner's sake, which takes seconds."""
    monkeypatch.setattr("fovea.kernels.calibration.prices", lambda *call: None)


QUICK = ("--seconds", "0.01", "--heads", "2", "--head-dim", "8")


def bench(fovea: Callable, *words: str) -> dict[str, dict]:
    result = fovea("bench", *words, *QUICK, "--json")
    assert result.status == 0, result.err
    (found,) = json.loads(result.out)["results"]
    return {way["name"]: way for way in found["ways"]} | {"": found}


@pytest.mark.parametrize("grad", [(), ("--grad",)])
def test_bench_measures_every_backend_and_dense_attention(fovea: Callable, grad: tuple[str, ...]):
    ways = bench(fovea, "neighborhood:window=3", "--grid", "6x7", *grad)
    assert {"reference", "auto", "dense, masked", "dense, every pair"} <= set(ways)
    assert set(registry.backends()) <= set(ways)
    for name in ("reference", "auto", "dense, masked"):
        assert ways[name]["seconds"] > 0
        assert ways[name]["error"] < 1e-5
    assert ways["dense, every pair"]["error"] is None
    assert (ways[""]["pairs"], ways[""]["all_pairs"]) == (42 * 9, 42 * 42)


def test_bench_says_why_a_way_is_left_out(fovea: Callable, monkeypatch: pytest.MonkeyPatch):
    assert "pads its keys" in bench(fovea, "halo:block=4,halo=1,border=zero", "--grid", "8")["dense, masked"]["why_not"]
    monkeypatch.setattr("fovea.cli.measure.DENSE_PAIRS", 10)
    ways = bench(fovea, "causal", "--grid", "8")
    assert ways["dense, masked"]["seconds"] is None
    assert ways["reference"]["why_not"] == "too large to be computed densely"
    assert ways["auto"]["error"] is None


def test_bench_shows_what_is_missing(fovea: Callable, monkeypatch: pytest.MonkeyPatch):
    real = Reference.missing
    monkeypatch.setattr(Reference, "missing", lambda self: real(self))
    for name, backend in registry.backends().items():
        if name != "reference":
            monkeypatch.setattr(type(backend), "missing", lambda self: "not today")
    ways = bench(fovea, "causal", "--grid", "8")
    for name in registry.backends():
        assert ways[name]["why_not"] == (None if name == "reference" else "not today")


def test_bench_counts_pairs_by_head(fovea: Callable):
    found = bench(fovea, "perhead(causal; full)", "--grid", "4")[""]
    assert found["pairs"] == (10 + 16) // 2


def test_bench_writes_a_file(fovea: Callable, tmp_path: Path):
    path = tmp_path / "out.json"
    result = fovea("bench", "causal", "--grid", "8", *QUICK, "-o", path)
    assert result.status == 0
    assert "36 of 64 pairs" in result.out
    report = json.loads(path.read_text())
    assert report["versions"]["torch"]
    assert report["results"][0]["title"].startswith("causal on 8, batch 1, 2 heads of 8, float32, cpu, forward")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["causal"], "a pattern needs a grid"),
        (["--grid", "8"], "a pattern needs a grid"),
        (["causal", "--grid", "8", "-o", "out.txt"], "must end in .json"),
        (["causal", "--grid", "8", "--device", "toaster"], "--device 'toaster' is not available here"),
        (["causal", "--grid", "8", "--dtype", "int8"], "--dtype"),
        (["causl", "--grid", "8"], "did you mean 'causal'"),
    ],
)
def test_bench_refuses(fovea: Callable, words: list[str], message: str):
    result = fovea("bench", *words)
    assert result.status == 2
    assert message in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("grad", [(), ("--grad",)])
def test_plan_explains(fovea: Callable, grad: tuple[str, ...]):
    words = ["window:size=4x4", "--grid", "16x16", "--heads", "2", "--head-dim", "8", *grad]
    text = fovea("plan", *words).out
    assert "window:size=4x4 on 16x16" in text
    assert f"{2 * 256 * 16:,} of {2 * 256 * 256:,} pairs" in text
    found = json.loads(fovea("plan", *words, "--json").out)
    assert found["bound"] == 16
    assert found["backward"] is bool(grad)
    assert found["backend"] in {row["backend"] for row in found["candidates"]} == set(registry.backends())


def test_plan_says_why_a_backend_is_not_taken(fovea: Callable, monkeypatch: pytest.MonkeyPatch):
    tiled = registry.backends()["tiled"]
    monkeypatch.setattr(type(tiled), "missing", lambda self: "the tiles have run out")
    text = fovea("plan", "causal", "--grid", "13", "--heads", "1").out
    assert "not taken: the tiles have run out" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["causal"], "missing option '--grid'"),
        (["causal", "--grid", "8", "--heads", "0"], "--heads"),
        (["perhead(causal; full)", "--grid", "8", "--heads", "3"], "made for 2"),
        (["neighborhood:window=9", "--grid", "8"], "must fit in the 8 keys"),
        (["causal", "--grid", "8", "--device", "cuda:77"], "--device 'cuda:77' is not available here"),
    ],
)
def test_plan_refuses(fovea: Callable, words: list[str], message: str):
    result = fovea("plan", *words)
    assert result.status == 2
    assert message in result.err
