from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.io

from fovea.data.synthetic.spectra import scene
from fovea.errors import UserError
from fovea.models.lola_specvit_config import LoLASpecViTConfig
from fovea.tasks.spectral import claims, trials
from fovea.tasks.spectral.config import SpectralConfig

TINY = LoLASpecViTConfig(
    in_channels=3,
    dim=4,
    depths=(1,),
    num_heads=(1,),
    window_size=(2,),
    mlp_ratio=1.0,
    spatial_size=4,
    r=1,
    lora_alpha=2.0,
    front=(2, 2),
    squeeze=1,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The claims at a size of seconds, on a generated scene, in a cache of their own."""
    made = scene((24, 24), 3, 10, 12)
    scipy.io.savemat(tmp_path / "JasperRidge.mat", {"jasper_ridge": made.cube})
    scipy.io.savemat(tmp_path / "JasperRidge_gt.mat", {"jasper_ridge_gt": made.labels})
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FOVEA_JASPER_RIDGE", str(tmp_path))
    monkeypatch.setattr(claims, "SEEDS", 2)
    monkeypatch.setattr(claims, "NETWORK", TINY)
    original = claims.configured

    def configured(share: float) -> SpectralConfig:
        config = original(share)
        optimisation = replace(config.optimisation, steps=2, batch=4, validate_every=2)
        data = replace(config.data, label_key=None, side=20, fields=8, kinds=3, bands=10)
        split = replace(config.split, train=0.2, block=6)
        return replace(config, optimisation=optimisation, data=data, split=split)

    monkeypatch.setattr(claims, "configured", configured)
    return tmp_path


def test_claims_measure_every_method_and_remember_it(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = claims.few_labels(quiet=True)
    assert set(found) == {"data", "2% random", "2% disjoint", "10% random", "10% disjoint"}
    for name, methods in found.items():
        if name != "data":
            assert set(methods) == set(claims.METHODS)
            assert all(len(methods[method][figure]["seeds"]) == 2 for method in methods for figure in ("oa", "kappa"))
    parts = claims.adapters(quiet=True)
    assert set(parts) == {"data", *claims.ADAPTED}
    assert parts["adapters"]["learned"] < parts["ours"]["learned"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(trials, "train", refuse)
    assert claims.few_labels(quiet=True) == found
    assert claims.adapters(quiet=True) == parts


def test_the_scene_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FOVEA_JASPER_RIDGE", raising=False)
    with pytest.raises(UserError, match="FOVEA_JASPER_RIDGE"):
        claims.jasper_ridge()
