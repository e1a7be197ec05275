from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fovea.cli.main import call
from fovea.systems.hbformer import SYSTEM
from fovea.tasks.slices import claims, sources, start

DEMO = SYSTEM.presets["demo"]


def test_the_baseline_of_the_demonstration_has_about_as_many_parameters() -> None:
    ours, theirs = (start.parameters(start.made(replace(DEMO, model=model))) for model in ("hbformer", "unet"))
    assert theirs == pytest.approx(ours, rel=0.07)


@pytest.mark.parametrize(
    ("name", "size", "classes", "batch", "decay", "weights"),
    [
        ("paper-synapse", 256, 9, 15, 1e-3, (0.33, 0.33, 0.34)),
        ("paper-lits", 256, 3, 34, 1e-2, (0.3, 0.4, 0.3)),
        ("paper-acdc", 224, 3, 2, 1e-2, (0.33, 0.33, 0.34)),
        ("paper-bladder", 512, 3, 8, 1e-2, (0.4, 0.5, 0.6)),
    ],
)
def test_the_papers_trainings(
    name: str, size: int, classes: int, batch: int, decay: float, weights: tuple[float, ...]
) -> None:
    preset = SYSTEM.presets[name]
    optimisation = preset.optimisation.counted(100 * batch)
    assert (preset.data.size, preset.network.img_size, preset.num_classes) == (size, size, classes)
    assert (optimisation.batch, optimisation.weight_decay, optimisation.algorithm) == (batch, decay, "adamw")
    assert preset.loss.weights == weights
    assert optimisation.steps == 100 * 100
    assert optimisation.rate(1) == pytest.approx(3e-4)
    assert optimisation.rate(optimisation.steps) == pytest.approx(1e-6, rel=0.1)
    assert optimisation.ema == 0


def test_claims_and_the_demonstration_learn_the_same_network() -> None:
    assert DEMO.network == claims.NETWORK
    assert len(sources.generated(DEMO)) == DEMO.data.test_slices


def test_the_command_line_from_training_to_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shared_data: Path
) -> None:
    """Real volumes where they are at hand."""
    shared = shared_data / "msd_hippocampus"
    monkeypatch.chdir(tmp_path)
    words = ["optimisation.steps=1", "optimisation.batch=2", "data.cases_held_out=1", "data.augment=false"]
    assert call(["--quiet", "train", "hbformer", "--data", str(shared), "--out", "run", *words]) == 0
    scan = next(iter(sorted((shared / "imagesTr").glob("*.nii.gz"))))
    assert call(["--quiet", "predict", "hbformer", "--checkpoint", "run", str(scan), "-o", "seg.nii.gz"]) == 0
    found, given = nibabel.load("seg.nii.gz"), nibabel.load(scan)
    assert found.shape == given.shape
    assert np.array_equal(found.affine, given.affine)
    capsys.readouterr()
    assert call(["--quiet", "predict", "hbformer", "--checkpoint", "run", str(scan), "-o", "seg.png"]) == 1
    told = capsys.readouterr().err.strip()
    assert "a PNG holds one slice" in told and "\n" not in told
