from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fovea.errors import UserError
from fovea.tasks.slices import claims, start
from fovea.tasks.slices.config import Data, SlicesConfig


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: SlicesConfig) -> Path:
    """The claims at a size of seconds, in a cache of their own."""
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(claims, "SEEDS", (0, 1))
    plain = SlicesConfig(model="unet", network=tiny.network, unet=tiny.unet)
    monkeypatch.setattr(claims, "VARIANTS", {"HBFormer": SlicesConfig(network=tiny.network), "plain U-Net": plain})
    monkeypatch.setattr(claims, "LESSON", replace(claims.LESSON, steps=2, batch=2, validate_every=2))
    monkeypatch.setattr(claims, "GENERATED", Data(size=32, fit="pad", intensity="unit", test_slices=2))
    monkeypatch.setattr(claims, "HIPPOCAMPUS", replace(claims.HIPPOCAMPUS, size=32))
    return tmp_path


def test_a_claim_measures_every_variant_and_remembers_it(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = claims.on_generated(quiet=True)
    assert set(found) == {"data", "steps", "HBFormer", "plain U-Net"}
    for name in ("dice", "hd95", "dice_tumour", "recall", "hd95_official"):
        assert len(found["HBFormer"][name]["seeds"]) == 2
    assert len(list((small / "cache" / "claims").iterdir())) == 4

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(claims.Segmentation, "train", refuse)
    assert claims.on_generated(quiet=True) == found


def test_real_slices_are_found_where_they_are_said_to_be(
    small: Path, monkeypatch: pytest.MonkeyPatch, decathlon: Path
) -> None:
    monkeypatch.setenv("FOVEA_DATA", str(small))
    with pytest.raises(UserError, match="FOVEA_DATA names the folder"):
        claims.on_hippocampus(quiet=True)
    (small / "msd_hippocampus").symlink_to(decathlon)
    found = claims.on_hippocampus(quiet=True)
    assert found["data"] == "msd_hippocampus"
    assert "slice_dice" in found["HBFormer"]


def test_baselines_have_about_as_many_parameters() -> None:
    counts = {name: start.parameters(start.made(config)) for name, config in claims.VARIANTS.items()}
    for name in ("Swin encoder, U-Net decoder", "plain U-Net", "skips at their natural level"):
        assert counts[name] == pytest.approx(counts["HBFormer"], rel=0.07), name
