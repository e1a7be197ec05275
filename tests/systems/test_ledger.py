from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fovea.errors import UserError
from fovea.systems import ledger
from fovea.systems.system import Claim


@pytest.fixture
def claim(monkeypatch: pytest.MonkeyPatch) -> Claim:
    module = ModuleType("fake_claims")
    module.measure = lambda quiet: {"ours": 2.5, "baseline": 1.0, "quiet": quiet}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_claims", module)
    return Claim("better", "Ours is better.", "3 dB", "fake_claims:measure")


def test_what_is_measured_is_read_back(claim: Claim, tmp_path: Path):
    entry = ledger.measure("hat", claim, tmp_path / "deep" / "ledger", quiet=True)
    assert entry["measured"] == {"ours": 2.5, "baseline": 1.0, "quiet": True}
    read = ledger.read(tmp_path / "deep" / "ledger", "hat")
    assert read["better"] == entry
    assert read["better"]["paper_number"] == "3 dB"
    assert read["better"]["versions"]["torch"]


def test_other_claims_stay(claim: Claim, tmp_path: Path):
    ledger.measure("hat", Claim("first", "One.", None, claim.measure), tmp_path)
    ledger.measure("hat", claim, tmp_path)
    assert list(ledger.read(tmp_path, "hat")) == ["first", "better"]
    assert json.loads((tmp_path / "hat.json").read_text())["system"] == "hat"


def test_what_was_not_measured_is_empty(tmp_path: Path):
    assert ledger.read(tmp_path, "hat") == {}


def test_a_damaged_ledger_is_named(tmp_path: Path):
    (tmp_path / "hat.json").write_text("{")
    with pytest.raises(UserError, match=r"hat\.json is no ledger"):
        ledger.read(tmp_path, "hat")


def test_the_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FOVEA_LEDGER", str(tmp_path))
    assert ledger.folder() == tmp_path


def test_a_folder_here_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("FOVEA_LEDGER", raising=False)
    (tmp_path / "benchmarks" / "ledger").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert ledger.folder() == Path("benchmarks/ledger")


def test_measure_must_name_a_function():
    with pytest.raises(ValueError, match="package.module:function"):
        Claim("x", "y.", None, "module.function")
