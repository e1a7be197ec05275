"""The layouts of segmentation data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fovea.data.slice_folders import LITS_CODES, cases
from fovea.errors import UserError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def synapse(folder: Path) -> Path:
    touch(folder, "train_npz/case0005_slice000.npz", "train_npz/case0005_slice001.npz", "test_vol_h5/case0001.npy.h5")
    lists = folder / "lists" / "lists_Synapse"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("case0005_slice000\ncase0005_slice001\n")
    (lists / "test_vol.txt").write_text("case0001\n")
    return folder


def test_synapse(tmp_path: Path) -> None:
    found = cases(synapse(tmp_path))
    assert (found.kind, [case.name for case in found.training]) == (
        "synapse",
        ["case0005_slice000", "case0005_slice001"],
    )
    assert [case.image.name for case in found.held_out] == ["case0001.npy.h5"]
    assert found.training[0].image == found.training[0].label
    assert found.names[1:3] == ("aorta", "gallbladder")
    assert len(found.names) == 9


def test_synapse_with_a_missing_list_or_entry(tmp_path: Path) -> None:
    synapse(tmp_path)
    (tmp_path / "train_npz" / "case0005_slice001.npz").unlink()
    with pytest.raises(UserError, match=r"train\.txt names files that are not in .*train_npz: case0005_slice001\.npz"):
        cases(tmp_path)
    (tmp_path / "lists/lists_Synapse/train.txt").write_text("")
    with pytest.raises(UserError, match=r"train\.txt names no file"):
        cases(tmp_path)
    (tmp_path / "lists/lists_Synapse/train.txt").unlink()
    with pytest.raises(UserError, match=r"there is no list .*lists/lists_Synapse/train\.txt"):
        cases(tmp_path)


def test_lits_png_with_and_without_a_test_part(tmp_path: Path) -> None:
    names = [f"volume-{i}.png" for i in range(10)]
    touch(tmp_path, *(f"train{what}_lits2017_png/{name}" for what in ("Image", "Mask") for name in names))
    found = cases(tmp_path)
    assert (found.kind, len(found.training), len(found.held_out)) == ("lits-png", 8, 2)
    assert {case.name for case in (*found.training, *found.held_out)} == {f"volume-{i}" for i in range(10)}
    assert [case.name for case in found.training] == [case.name for case in cases(tmp_path).training]
    assert found.training[0].codes == LITS_CODES
    touch(tmp_path, "testImage_lits2017_png/a.png", "testMask_lits2017_png/a.png")
    found = cases(tmp_path)
    assert (len(found.training), [case.name for case in found.held_out]) == (10, ["a"])
    (tmp_path / "trainMask_lits2017_png/volume-3.png").unlink()
    with pytest.raises(UserError, match=r"trainMask_lits2017_png has no labels for volume-3\.png"):
        cases(tmp_path)


def test_lits_nifti_in_the_order_of_numbers(tmp_path: Path) -> None:
    for i in range(11):
        touch(tmp_path, f"CT/volume-{i}.nii", f"seg/segmentation-{i}.nii.gz")
    found = cases(tmp_path)
    assert [case.name for case in found.held_out] == ["volume-9", "volume-10"]
    assert found.training[0].label.name == "segmentation-0.nii.gz"
    (tmp_path / "seg/segmentation-4.nii.gz").unlink()
    with pytest.raises(UserError, match="has no segmentation of volume 4"):
        cases(tmp_path)


def decathlon(folder: Path, count: int = 5) -> Path:
    entries = [{"image": f"./imagesTr/a_{i}.nii.gz", "label": f"./labelsTr/a_{i}.nii.gz"} for i in range(count)]
    touch(folder, *(path for entry in entries for path in entry.values()))
    described = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": entries,
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def test_decathlon(tmp_path: Path) -> None:
    found = cases(decathlon(tmp_path))
    assert (found.kind, found.modality, found.names) == ("msd", "ct", ("background", "liver", "cancer"))
    assert [case.name for case in found.training] == ["a_0", "a_1", "a_2", "a_3"]
    assert [case.name for case in found.held_out] == ["a_4"]
    (tmp_path / "labelsTr/a_2.nii.gz").unlink()
    with pytest.raises(UserError, match=r"names files that are not there: .*labelsTr/a_2\.nii\.gz"):
        cases(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="is no description of a Decathlon data set"):
        cases(tmp_path)


def test_the_hippocampus_set(shared_data: Path) -> None:
    found = cases(shared_data / "msd_hippocampus")
    assert (len(found.training), len(found.held_out)) == (32, 8)
    assert found.names == ("background", "Anterior", "Posterior")


def test_pairs(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii.gz", "images/b.png", "labels/a.nii.gz", "labels/b.png", "images/.hidden.png")
    found = cases(tmp_path)
    assert (found.kind, [c.name for c in found.training], [c.name for c in found.held_out]) == ("pairs", ["a"], ["b"])
    (tmp_path / "labels/b.png").unlink()
    with pytest.raises(UserError, match=r"labels has no labels for b\.png"):
        cases(tmp_path)


def test_no_layout(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=np.zeros((2, 2)))
    with pytest.raises(UserError, match=r"no layout that is known \(it holds x\.npz\)"):
        cases(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        cases(tmp_path / "none")
    with pytest.raises(UserError, match="is a file; it must be a folder"):
        cases(tmp_path / "x.npz")
