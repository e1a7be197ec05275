from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.errors import UsageError
from fovea.tasks import configuration


@dataclass(frozen=True)
class Network:
    embed_dim: int = 36
    depths: tuple[int, ...] = (2, 2)
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = None


@dataclass(frozen=True)
class Settings:
    stage: Literal["sr", "denoise"] = "sr"
    network: Network = field(default_factory=Network)
    name: str = "first"
    bright: bool = False
    folder: Path | None = None


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("network.embed_dim=48", "network.embed_dim", 48),
        ("network.embed_dim=1e2", "network.embed_dim", 100),
        ("network.depths=6,6,6", "network.depths", (6, 6, 6)),
        ("network.depths=[3]", "network.depths", (3,)),
        ("network.depths=4", "network.depths", (4,)),
        ("network.betas=0.5,0.6", "network.betas", (0.5, 0.6)),
        ("network.clip=1", "network.clip", 1.0),
        ("network.clip=5e-4", "network.clip", 5e-4),
        ("network.clip=none", "network.clip", None),
        ("network.clip=null", "network.clip", None),
        ("stage=denoise", "stage", "denoise"),
        ("name=12", "name", "12"),
        ("name=a=b", "name", "a=b"),
        ("bright=yes", "bright", True),
        ("folder=/data/set5", "folder", Path("/data/set5")),
    ],
)
def test_override_converts_to_the_declared_type(assignment: str, key: str, value: object) -> None:
    changed = dict(configuration.flat(configuration.override(Settings(), [assignment])))
    assert changed[key] == value
    assert type(changed[key]) is type(value)
    untouched = {name: given for name, given in configuration.flat(Settings()) if name != key}
    assert untouched == {name: given for name, given in changed.items() if name != key}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("network.embed_din=48", "network.embed_dim"),
        ("embed_dim=48", "network.embed_dim"),
        ("stge=sr", "stage"),
        ("network.embed_dim=wide", "takes a whole number"),
        ("network.embed_dim=1.5", "takes a whole number"),
        ("network.betas=1,2,3", "2 comma-separated values"),
        ("stage=denoize", "did you mean denoise"),
        ("bright=3", "true or false"),
        ("network=3", "network=3 does not fit"),
        ("name.first=3", "has no parts"),
        ("name", "write key=value"),
        ("network.clip=high", "a finite number or none"),
    ],
)
def test_mistakes_are_answered_with_what_there_is(assignment: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        configuration.override(Settings(), [assignment])
    assert "\n" not in str(caught.value)


@given(
    st.builds(
        Settings,
        stage=st.sampled_from(["sr", "denoise"]),
        network=st.builds(
            Network,
            embed_dim=st.integers(1, 10**6),
            depths=st.lists(st.integers(1, 9), max_size=4).map(tuple),
            clip=st.none() | st.floats(1e-12, 1e12),
        ),
        name=st.text(),
        bright=st.booleans(),
        folder=st.none() | st.just(Path("a b/c")),
    )
)
def test_yaml_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> None:
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    configuration.save(settings, path)
    assert configuration.load(Settings, path) == settings


def test_load_names_the_unknown_key_and_broken_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("network: {embed_dims: 3}\n")
    with pytest.raises(UsageError, match=r"network\.embed_dim"):
        configuration.load(Settings, path)
    path.write_text("network: {")
    with pytest.raises(UsageError, match="not YAML"):
        configuration.load(Settings, path)
    path.write_text("")
    assert configuration.load(Settings, path) == Settings()
