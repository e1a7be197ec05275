"""The claims' bookkeeping, with trainings of one step: means over seeds, finished runs are not run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fovea.tasks.segmentation import claims
from fovea.tasks.segmentation.config import VolumesConfig


def test_three_variants_and_resumption(
    quick: VolumesConfig, brats: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FOVEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(claims, "SEEDS", (0, 1))
    found = claims._compared(quick, brats, True)
    assert found["data"] == "data" and found["steps"] == 1
    for name in ("Swin UNETR", "without shift", "plain U-Net"):
        assert found[name]["parameters"] > 0 and len(found[name]["hd95_wt"]["seeds"]) == 2
    assert found["Swin UNETR"]["parameters"] == found["without shift"]["parameters"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished training was run again")

    monkeypatch.setattr(claims.VolumeSegmentation, "train", never)
    assert claims._compared(quick, brats, True) == found
