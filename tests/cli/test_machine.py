from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fovea import __version__
from fovea.kernels import registry
from fovea.kernels.reference import Reference


def test_doctor_tells_versions_devices_and_backends(fovea: Callable):
    found = json.loads(fovea("doctor", "--json").out)
    assert found["versions"]["fovea"] == __version__
    assert found["machine"]["devices"].startswith("cpu")
    assert found["backends"][0] == {"name": "reference", "missing": None}
    assert {entry["name"] for entry in found["backends"]} == set(registry.backends())
    text = fovea("doctor").out
    assert "reference" in text
    assert found["cache"]["folder"] in text


def test_doctor_says_why_a_backend_is_missing(fovea: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Reference, "missing", lambda self: "no patience")
    assert "no patience" in fovea("doctor").out


def test_doctor_says_how_to_install_what_is_missing(fovea: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fovea.cli.machine.find_spec", lambda name: None if name == "lightning" else object())
    assert "pip install 'fovea[train]'" in fovea("doctor").out
    assert "pip install 'fovea[draw]'" not in fovea("doctor").out


def test_cache_is_shown_and_forgotten(fovea: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path))
    assert json.loads(fovea("cache", "show", "--json").out) == {"folder": str(tmp_path), "measured": "nothing yet"}
    assert fovea("cache", "forget").out == "nothing was remembered\n"
    (tmp_path / "prices-tiled-cpu-float32-forward-1.json").write_text("{}")
    (tmp_path / "mine.txt").write_text("keep")
    assert "tiled-cpu-float32-forward-1" in fovea("cache", "show").out
    assert fovea("cache", "forget").out == "forgotten: 1 measurements\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
