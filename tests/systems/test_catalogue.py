"""Every card is checked by existing."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from fovea import systems
from fovea.errors import UsageError
from fovea.patterns import GridPattern, parse
from fovea.systems.catalogue import catalogue, get, slugs
from fovea.systems.system import AREAS, Card, System
from fovea.tasks import configuration

EVERY = pytest.mark.parametrize("system", catalogue().values(), ids=lambda system: system.card.slug)


def test_there_are_thirty_one_systems_one_a_file():
    assert len(catalogue()) == 31
    assert set(catalogue()) == set(slugs())
    for slug, system in catalogue().items():
        assert system.card.slug == slug
    files = {path.stem for path in Path(systems.__path__[0]).glob("*.py")}
    assert {slug.replace("-", "_") for slug in slugs()} <= files


def test_cards_differ_in_what_tells_them_apart():
    cards = [system.card for system in catalogue().values()]
    for name in ("title", "about", "idea", "paper"):
        values = [value for card in cards if (value := getattr(card, name)) is not None]
        assert len(set(values)) == len(values), name


def test_the_catalogue_is_ordered_by_area_and_year():
    order = [(AREAS.index(system.card.area), system.card.year) for system in catalogue().values()]
    assert order == sorted(order)


@EVERY
def test_card(system: System):
    card = system.card
    assert 2015 <= card.year <= 2026
    assert card.title.strip() == card.title
    assert len(card.about) <= 60
    assert not card.about.endswith(".")
    assert 60 <= len(card.idea) <= 260
    assert card.idea[0].isupper()
    assert card.idea.endswith(".")
    assert not re.search(r"[.!?] ", card.idea), "one sentence"
    assert card.idea != card.title
    shared = set(_words(card.idea)) & set(_words(card.title))
    assert len(shared) < 0.6 * len(set(_words(card.title))), "in our words, not the title's"
    assert set(card.carried_by) <= {
        "patterns",
        "kernels",
        "nn",
        "models",
        "tasks",
        "inspect",
        "steer",
        "human",
        "agents",
        "web",
    }
    if card.code is None:
        assert card.licence is None, "a licence is that of the code"
    else:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", card.code)
    if card.paper is not None and card.paper.startswith("arXiv:"):
        year = 2000 + int(card.paper.removeprefix("arXiv:")[:2])
        assert abs(card.year - year) <= 1


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 3]


@EVERY
def test_views_can_be_drawn(system: System):
    for view in system.views:
        pattern = parse(view.pattern)
        pattern.check(view.grid, view.grid)
        if isinstance(pattern, GridPattern):
            pattern.spans(view.grid)
        assert str(parse(str(pattern))) == str(pattern)


@EVERY
def test_presets_are_written_and_read(system: System, tmp_path: Path):
    for name, preset in system.presets.items():
        path = tmp_path / f"{name}.yaml"
        configuration.save(preset, path)
        assert configuration.load(type(preset), path) == preset


@EVERY
def test_what_is_ready_runs(system: System):
    if system.task is not None:
        task = import_module(system.task).TASK
        for preset in system.presets.values():
            assert isinstance(preset, task.config)
    if system.card.status == "ready":
        assert system.task is not None
        assert "demo" in system.presets


@EVERY
def test_claims_name_functions_that_exist(system: System):
    for claim in system.claims:
        module, _, function = claim.measure.partition(":")
        assert callable(getattr(import_module(module), function))
        assert claim.sentence.endswith(".")


def test_names_are_forgiven_case_and_underscores():
    assert get("Swin_UNETR") is get("swin-unetr")


def test_an_unknown_system_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean halonet"):
        get("halonets")


def test_the_catalogue_needs_neither_torch_nor_numpy():
    code = (
        "import sys; from fovea.systems.catalogue import catalogue; catalogue(); "
        "print(*({'torch', 'numpy', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


CARD = {
    "slug": "some-system",
    "title": "Some System",
    "about": "Something",
    "year": 2024,
    "authors": 3,
    "paper": "arXiv:2401.00001",
    "code": None,
    "licence": None,
    "area": "language",
    "idea": "Does something.",
    "carried_by": ("nn",),
}


def test_addresses():
    assert Card(**CARD).paper_address == "https://arxiv.org/abs/2401.00001"
    assert Card(**{**CARD, "paper": "doi:10.1000/x"}).paper_address == "https://doi.org/10.1000/x"
    assert Card(**{**CARD, "paper": None}).paper_address is None
    assert Card(**{**CARD, "code": "a/b"}).code_address == "https://github.com/a/b"
    assert Card(**{**CARD, "code": "https://x.org"}).code_address == "https://x.org"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slug", "Some System"),
        ("slug", "some_system"),
        ("area", "cooking"),
        ("status", "perhaps"),
        ("paper", "2401.00001"),
        ("authors", 0),
        ("carried_by", ()),
    ],
)
def test_impossible_cards_are_refused(name: str, value: object):
    with pytest.raises(ValueError, match=r"some-system|slug"):
        Card(**{**CARD, name: value})


def test_a_system_is_ready_only_with_a_task_and_a_demo():
    with pytest.raises(ValueError, match="a ready system has a task"):
        System(card=Card(**CARD, status="ready"))


def test_presets_are_dataclasses():
    with pytest.raises(ValueError, match="must be an instance of a dataclass"):
        System(card=Card(**CARD), presets={"demo": {"steps": 3}})
