from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fovea.systems.catalogue import catalogue


def test_list_names_every_system(fovea: Callable):
    lines = fovea("list").out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(catalogue())


def test_list_by_area_and_words(fovea: Callable):
    assert set(_slugs(fovea("list", "--area", "segmentation", "--json"))) == {"swin-unetr", "hbformer"}
    assert _slugs(fovea("list", "VIDEO", "window", "--json")) == ["freeswim"]
    assert _slugs(fovea("list", "--area", "segmentation", "video", "--json")) == []
    assert "No system fits" in fovea("list", "zzzz").out


def test_list_of_what_is_ready_holds_nothing_else(fovea: Callable):
    ready = [slug for slug, system in catalogue().items() if system.card.status == "ready"]
    assert _slugs(fovea("list", "--ready", "--json")) == ready


def test_list_as_json_has_the_cards(fovea: Callable):
    cards = json.loads(fovea("list", "--json").out)
    assert len(cards) == len(catalogue())
    assert cards[0]["title"] == next(iter(catalogue().values())).card.title


def _slugs(result) -> list[str]:
    return [card["slug"] for card in json.loads(result.out)]


@pytest.mark.parametrize("slug", catalogue())
def test_show_every_system(fovea: Callable, slug: str):
    result = fovea("show", slug)
    system = catalogue()[slug]
    assert result.status == 0
    assert system.card.title in result.out
    assert system.card.idea in result.out
    for view in system.views:
        assert view.pattern in result.out
    assert json.loads(fovea("show", slug, "--json").out)["card"]["slug"] == slug


def test_show_says_what_was_measured_and_what_was_not(fovea: Callable, recorder, tmp_path: Path):
    assert "ours:  not measured yet" in fovea("show", "fake").out
    assert fovea("claims", "fake", "--out", "benchmarks/ledger", "--quiet").status == 0
    shown = fovea("show", "fake").out
    assert "ours:  20" in shown
    assert "    ours 2.5000\n" in shown
    measured = json.loads(fovea("show", "fake", "--json").out)["claims"][0]["measured"]
    assert measured["measured"] == {"ours": 2.5}


def test_show_lists_settings_that_run_takes(fovea: Callable, recorder):
    settings = fovea("show", "fake", "--preset", "paper").out.split()
    assert settings == ["steps=1000", "rate=0.5", "hardware.devices=1"]
    assert fovea("run", "fake", *settings).status == 0
    assert recorder.calls[0][1]["config"].steps == 1000


def test_show_of_an_unknown_preset(fovea: Callable, recorder):
    result = fovea("show", "fake", "--preset", "dmeo")
    assert result.status == 2
    assert "unknown preset of fake 'dmeo'; did you mean demo?" in result.err


def test_show_draws_into_a_file(fovea: Callable, tmp_path: Path):
    picture = tmp_path / "gna.png"
    assert fovea("show", "gna", "--draw", picture).status == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert fovea("show", "gna", "--draw", tmp_path).status == 2
    assert "nothing to draw" in fovea("show", "myow", "--draw", picture).err
