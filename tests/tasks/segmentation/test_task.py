"""Segmentation of volumes from end to end, on small things: run, train, evaluate, predict, and what goes wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fovea import checkpoints
from fovea.errors import UsageError, UserError
from fovea.models.swin_unetr import SwinUNETR
from fovea.tasks.run import RunDirectory
from fovea.tasks.segmentation import TASK, start
from fovea.tasks.segmentation.config import Data, Loss, VolumesConfig
from fovea.tasks.segmentation.learner import Segmenter
from fovea.tasks.segmentation.losses import loss
from fovea.tasks.segmentation.sources import folder, generated

nibabel = pytest.importorskip("nibabel")


def saved(config: VolumesConfig, path: Path) -> Path:
    """A checkpoint of a network that was not trained."""
    network = start.begin(config, None)[0]
    Segmenter(network, generated(config), config, lambda _: {}).save(network, path)
    return path


def test_demonstration(config: VolumesConfig, tmp_path: Path) -> None:
    measured = TASK.run(config, RunDirectory(tmp_path / "run", quiet=True), quiet=True)
    assert {"dice_wt", "hd95_tc", "missed_et", "baseline_dice_wt"} <= measured.keys()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == measured
    page = (tmp_path / "run" / "report.html").read_text()
    for words in ("plain U-Net, axial", "truth, coronal", "Swin UNETR, sagittal", "HD95 (server)"):
        assert words in page
    assert isinstance(checkpoints.load(tmp_path / "run" / "checkpoint").network, SwinUNETR)


def test_training_on_a_folder_and_evaluation(quick: VolumesConfig, brats: Path, tmp_path: Path) -> None:
    measured = TASK.train(quick, RunDirectory(tmp_path / "run", quiet=True), brats, quiet=True)
    again = TASK.evaluate(VolumesConfig(data=Data(held_out=1)), tmp_path / "run", brats, quiet=True)
    assert again == pytest.approx(measured, nan_ok=True)


def test_exclusive_classes(quick: VolumesConfig, tmp_path: Path, brats: Path) -> None:
    """A Decathlon folder whose one file has all modalities."""
    images, labels = tmp_path / "task" / "imagesTr", tmp_path / "task" / "labelsTr"
    images.mkdir(parents=True)
    labels.mkdir()
    entries = []
    for case in sorted(brats.iterdir()):
        seg = nibabel.load(case / f"{case.name}_seg.nii.gz")
        flair = nibabel.load(case / f"{case.name}_flair.nii.gz")
        nibabel.save(flair, images / f"{case.name}.nii.gz")
        organ = (np.asarray(seg.dataobj) > 0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(organ, seg.affine), labels / f"{case.name}.nii.gz")
        entries.append({part: f"./{part}sTr/{case.name}.nii.gz" for part in ("image", "label")})
    content = {"labels": {"0": "background", "1": "Tumour"}, "training": entries}
    (tmp_path / "task" / "dataset.json").write_text(json.dumps(content))
    config = replace(
        quick,
        network=replace(quick.network, in_channels=1, out_channels=2),
        data=replace(quick.data, coding="classes"),
    )
    measured = TASK.train(config, RunDirectory(tmp_path / "run", quiet=True), tmp_path / "task", quiet=True)
    assert "dice_tumour" in measured
    (written,) = TASK.predict(
        config, tmp_path / "run", [images / f"{case.name}.nii.gz"], tmp_path / "out.nii.gz", quiet=True
    )
    assert set(np.unique(np.asarray(nibabel.load(written).dataobj))) <= {0, 1}


def test_prediction_keeps_the_place(config: VolumesConfig, brats: Path, tmp_path: Path) -> None:
    checkpoint, case = saved(config, tmp_path / "checkpoint"), brats / "BraTS_001"
    (written,) = TASK.predict(config, checkpoint, [case], tmp_path / "seg.nii.gz", quiet=True)
    found, like = nibabel.load(written), nibabel.load(case / "BraTS_001_flair.nii.gz")
    assert (found.affine == like.affine).all() and found.shape == like.shape
    assert found.header.get_zooms() == like.header.get_zooms()
    assert set(np.unique(np.asarray(found.dataobj))) <= {0, 1, 2, 4}
    several = TASK.predict(config, checkpoint, [brats], tmp_path / "out", quiet=True, flips=True, overlap=0.25)
    assert [path.name for path in several] == [f"BraTS_00{n}_seg.nii.gz" for n in range(3)]


def test_official_checkpoint(config: VolumesConfig, brats: Path, tmp_path: Path) -> None:
    network = SwinUNETR(replace(config.network, merging="legacy", shrunk_bias="official"))
    state = checkpoints.to_official("swin-unetr", network, network.config)
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "model.pt")
    (written,) = TASK.predict(
        config, tmp_path / "model.pt", [brats / "BraTS_000"], tmp_path / "seg.nii.gz", quiet=True, roi=[32, 32, 32]
    )
    assert written.is_file()
    with pytest.raises(UserError, match="trained with network.merging=legacy"):
        start.begin(config, tmp_path / "model.pt")
    encoder = {name.replace("swinViT.", "module."): t for name, t in state.items() if name.startswith("swinViT.")}
    torch.save({"state_dict": encoder}, tmp_path / "model_swinvit.pt")
    begun, words = start.begin(config, tmp_path / "model_swinvit.pt")
    assert "the way down starts from" in words
    assert torch.equal(begun.state_dict()["patch_embedding.weight"], network.patch_embedding.weight)


@pytest.mark.parametrize("kind", ["missing", "cut", "nan"])
def test_bad_files_leave_nothing_behind(config: VolumesConfig, brats: Path, tmp_path: Path, kind: str) -> None:
    checkpoint, case = saved(config, tmp_path / "checkpoint"), brats / "BraTS_002"
    file = case / "BraTS_002_t2.nii.gz"
    if kind == "missing":
        file.unlink()
    elif kind == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        image = nibabel.load(file)
        nibabel.save(nibabel.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), file)
    with pytest.raises(UserError, match="t2"):
        TASK.predict(config, checkpoint, [case], tmp_path / "out" / "seg.nii.gz", quiet=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="t2"):
        TASK.evaluate(config, checkpoint, brats, quiet=True)


def test_refusals(config: VolumesConfig, brats: Path, tmp_path: Path) -> None:
    checkpoint, case = saved(config, tmp_path / "checkpoint"), brats / "BraTS_000"

    def refused(message: str, output: str = "seg.nii.gz", inputs: list[Path] | None = None, **options: object) -> None:
        with pytest.raises(UserError, match=message):
            TASK.predict(config, checkpoint, inputs or [case], tmp_path / output, quiet=True, **options)

    refused("it must end in .nii.gz or .nii, or be a folder", "seg.png")
    refused("3 cases need a folder", inputs=[brats])
    refused("is an input itself", "data/BraTS_000/BraTS_000_flair.nii.gz")
    refused("tile is no option; options are overlap", tile=3)
    refused("coding is that of the training", coding="classes")
    refused("overlap must be in", overlap=1.5)
    refused("has 1 modalities; the network reads 4", inputs=[case / "BraTS_000_flair.nii.gz"])
    with pytest.raises(UserError, match="no checkpoint is given"):
        TASK.predict(config, None, [case], tmp_path / "seg.nii.gz", quiet=True)
    with pytest.raises(UserError, match="data.fold=3; folds has folds 0|folds.json has folds 0"):
        names = [f"data/BraTS_000/BraTS_000_{kind}.nii.gz" for kind in config.data.modalities]
        entry = {"fold": 0, "image": names, "label": "data/BraTS_000/BraTS_000_seg.nii.gz"}
        (tmp_path / "folds.json").write_text(json.dumps({"training": [entry]}))
        folder(replace(config, data=replace(config.data, fold=3)), tmp_path / "folds.json")
    with pytest.raises(UserError, match="none is left to learn from"):
        folder(replace(config, data=replace(config.data, held_out=9)), brats)
    with pytest.raises(UsageError, match="data.coding=brats has three regions"):
        replace(config, network=replace(config.network, out_channels=2))


def test_losses() -> None:
    """Regions: Dice and the binary cross-entropy of each; classes: Dice and the cross-entropy."""
    logits, truth = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 2, (2, 3, 4, 4, 4), dtype=torch.uint8)
    dice = loss(Loss("dice"), regions=True)(logits, truth)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth.float())
    torch.testing.assert_close(loss(Loss("dice-ce"), regions=True)(logits, truth), dice + entropy)
    classes = torch.randint(0, 3, (2, 1, 4, 4, 4), dtype=torch.uint8)
    both = loss(Loss("dice-ce"), regions=False)(logits, classes) - loss(Loss("dice"), regions=False)(logits, classes)
    torch.testing.assert_close(both, torch.nn.functional.cross_entropy(logits, classes[:, 0].long()))
