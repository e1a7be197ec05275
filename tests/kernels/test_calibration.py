"""Prices are measured once, remembered, and never a reason to fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fovea.kernels import calibration
from fovea.kernels.backend import Work
from fovea.kernels.calibration import Prices
from fovea.kernels.registry import backends

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    calibration._prices.cache_clear()
    yield tmp_path / "cache"
    calibration._prices.cache_clear()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Backends as they are timed; the clock is replaced by invented prices."""
    names: list[str] = []

    def pretend(backend: Any, problem: Any) -> tuple[Work, float]:
        names.append(backend.name)
        work = backend.work(problem)
        return work, Prices(1e-11, 1e-10, 1e-4).seconds(work)

    monkeypatch.setattr(calibration, "_time", pretend)
    yield names
    calibration._prices.cache_clear()


def ask() -> Prices | None:
    return calibration.prices(backends()["tiled"], CPU, torch.float32, False)


def again() -> Prices | None:
    """As another process would ask."""
    calibration._prices.cache_clear()
    return ask()


def test_the_fit_finds_the_prices(cache: Path, measured: list[str]) -> None:
    found = ask()
    assert found is not None
    assert (found.flop, found.byte, found.launch) == pytest.approx((1e-11, 1e-10, 1e-4), rel=0.05)


def test_remembered_by_other_processes(cache: Path, measured: list[str]) -> None:
    first, times = ask(), len(measured)
    assert times
    assert again() == first
    assert len(measured) == times
    (file,) = cache.glob("prices-tiled-cpu-float32-forward-*.json")
    content = json.loads(file.read_text())
    content["machine"] = "another"
    file.write_text(json.dumps(content))
    again()
    assert len(measured) == 2 * times


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"machine": 1}', '{"flop": NaN}'])
def test_a_broken_file_is_measured_anew(cache: Path, measured: list[str], content: str) -> None:
    first, times = ask(), len(measured)
    (file,) = cache.iterdir()
    file.write_text(content)
    assert again() == first
    assert len(measured) == 2 * times
    assert json.loads(file.read_text())["machine"]


def test_prices_out_of_range_are_measured_anew(cache: Path, measured: list[str]) -> None:
    first = ask()
    (file,) = cache.iterdir()
    for value in ("-1", "NaN", '"much"'):
        content = json.loads(file.read_text()) | {"flop": "HERE"}
        file.write_text(json.dumps(content).replace('"HERE"', value))
        assert again() == first


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("FOVEA_CACHE", str(blocked))
    assert again() is not None
    assert blocked.read_text() == "no folder"


def test_forgotten(cache: Path, measured: list[str]) -> None:
    ask()
    times = len(measured)
    other = cache / "something else"
    other.write_text("")
    assert calibration.forget() == 1
    assert list(cache.iterdir()) == [other]
    ask()
    assert len(measured) == 2 * times
    calibration.forget()


def test_measuring_for_real(cache: Path) -> None:
    for grad in (False, True):
        found = calibration.prices(backends()["tiled"], CPU, torch.float32, grad)
        assert found is not None
        assert 0 < found.seconds(Work(1 << 20, 1e9, 1e8, 10)) < 1000
