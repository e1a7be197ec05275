from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fovea.models.hat_config import HATConfig
from fovea.tasks.restoration import claims

TINY = HATConfig(
    upscale=2,
    embed_dim=4,
    depths=(1,),
    num_heads=(1,),
    window_size=4,
    compress_ratio=2,
    squeeze_factor=2,
    drop_path_rate=0.0,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The claims at a size of seconds, in a cache of their own."""
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path))
    monkeypatch.setattr(claims, "SEEDS", (0, 1))
    monkeypatch.setattr(claims, "NETWORK", TINY)
    monkeypatch.setattr(claims, "VARIANTS", {"HAT": TINY, "without both": replace(TINY, cab=False, ocab=False)})
    monkeypatch.setattr(claims, "LESSON", replace(claims.LESSON, steps=2, batch=1, validate_every=2))
    monkeypatch.setattr(claims, "BEFORE", 3)
    monkeypatch.setattr("fovea.tasks.restoration.sources.TEXTURES", 1)
    monkeypatch.setattr("fovea.tasks.restoration.sources.TEXTURE", 64)
    monkeypatch.setattr(claims, "_diffusion", lambda checkpoint, config: 5.0)
    return tmp_path


def test_an_ablation_measures_every_variant_and_remembers_it(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = claims.on_textures(quiet=True)
    assert set(found) == {"data", "steps", "HAT", "without both"}
    assert found["HAT"]["parameters"] > found["without both"]["parameters"]
    for name in ("psnr", "ssim", "baseline_psnr", "diffusion_index"):
        assert len(found["HAT"][name]["seeds"]) == 2
    assert len(list((small / "claims").iterdir())) == 4

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(claims.Restoration, "train", refuse)
    assert claims.on_textures(quiet=True) == found


def test_pretraining_compares_equal_steps(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, float, bool]] = []

    def train(self: Any, config: Any, run: Any, data: Any, *, checkpoint: Any, **_: Any) -> dict[str, float]:
        calls.append((config.optimisation.steps, config.optimisation.lr, checkpoint is not None))
        return {"psnr": 30.0 + (checkpoint is not None)}

    monkeypatch.setattr(claims.Restoration, "train", train)
    found = claims.pretraining(quiet=True)
    assert found["pre-trained"]["psnr"]["mean"] == 31
    lesson = claims.LESSON
    assert calls[:3] == [
        (claims.BEFORE, lesson.lr, False),
        (lesson.steps, lesson.lr / 20, True),
        (lesson.steps, lesson.lr, False),
    ]


def test_the_baseline_has_as_many_parameters() -> None:
    from fovea.models.hat import HAT

    counts = {name: sum(p.numel() for p in HAT(network).parameters()) for name, network in claims.VARIANTS.items()}
    assert counts["without both, as many parameters"] == pytest.approx(counts["HAT"], rel=0.03)
