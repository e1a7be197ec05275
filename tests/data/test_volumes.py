"""Volumes on disk: every layout, every way they can be wrong, and label maps written back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fovea.data import volumes
from fovea.data.volumes import MODALITIES, brats_case, cases, read, save
from fovea.errors import UserError

nibabel = pytest.importorskip("nibabel")

AFFINE = np.array([[-1.5, 0, 0, 90], [0, 1, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]], float)
SIZE = (5, 6, 4)


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def brats(folder: Path, name: str = "BraTS_1") -> Path:
    for number, kind in enumerate(MODALITIES):
        write(folder / name / f"{name}_{kind}.nii.gz", np.full(SIZE, number + 1, np.int16))
    labels = np.zeros(SIZE, np.uint8)
    labels[1, 2, 3] = 4
    write(folder / name / f"{name}_seg.nii.gz", labels)
    return folder / name


def test_brats_folder(tmp_path: Path) -> None:
    brats(tmp_path / "TrainingData", "B_2")
    brats(tmp_path / "TrainingData", "B_1")
    found, names = cases(tmp_path)
    assert [case.name for case in found] == ["B_1", "B_2"] and not names
    volume = read(found[0])
    assert volume.image.shape == (4, *SIZE) and volume.image.dtype == np.float32
    assert volume.image[:, 0, 0, 0].tolist() == [1, 2, 3, 4]  # in the order of MODALITIES, not of the alphabet
    assert volume.labels is not None and volume.labels[1, 2, 3] == 4
    assert volume.spacing == (1.5, 1.0, 2.0)
    assert read(found[0], labels=False).labels is None
    assert [case.name for case in cases(tmp_path / "TrainingData" / "B_2")[0]] == ["B_2"]


def test_modalities_in_another_order(tmp_path: Path) -> None:
    case = brats_case(brats(tmp_path), ("t2", "t1"))
    assert read(case).image[:, 0, 0, 0].tolist() == [4, 3]


def test_folds_keep_their_own_order(tmp_path: Path) -> None:
    folder = brats(tmp_path)
    entry = {
        "fold": 2,
        "image": [f"{folder.name}/{folder.name}_{kind}.nii.gz" for kind in ("t1", "flair")],
        "label": f"{folder.name}/{folder.name}_seg.nii.gz",
    }
    (tmp_path / "folds.json").write_text(json.dumps({"training": [entry]}))
    (case,), _ = cases(tmp_path / "folds.json")
    assert case.fold == 2 and case.name == folder.name
    assert read(case).image[:, 0, 0, 0].tolist() == [3, 1]


def test_decathlon(tmp_path: Path) -> None:
    write(tmp_path / "imagesTr" / "a.nii.gz", np.stack([np.full(SIZE, v, np.float32) for v in (7, 8)], -1))
    write(tmp_path / "labelsTr" / "a.nii.gz", np.ones(SIZE, np.float32))
    content = {
        "labels": {"0": "background", "1": "organ"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (case,), names = cases(tmp_path)
    assert names == {0: "background", 1: "organ"} and case.name == "a"
    volume = read(case)
    assert volume.image.shape == (2, *SIZE) and volume.image[:, 0, 0, 0].tolist() == [7, 8]
    assert volume.labels is not None and volume.labels.dtype == np.uint8


def test_real_hippocampi(shared_data: Path) -> None:
    found, names = cases(shared_data / "msd_hippocampus")
    assert len(found) == 40 and names[1] == "Anterior"
    volume = read(found[0])
    assert volume.labels is not None and set(np.unique(volume.labels)) == {0, 1, 2}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def spoil(folder: Path, kind: str) -> None:
    """Damage one file of a case."""
    path = folder / f"{folder.name}_t1.nii.gz"
    if kind == "missing":
        path.unlink()
    elif kind == "cut":
        cut(path)
    elif kind == "shape":
        write(path, np.zeros((5, 6, 5), np.int16))
    elif kind == "affine":
        write(path, np.zeros(SIZE, np.int16), AFFINE + np.eye(4) * [0.5, 0, 0, 0])
    elif kind == "nan":
        array = np.zeros(SIZE, np.float32)
        array[0, 0, 0] = np.nan
        write(path, array)
    elif kind == "complex":
        write(path, np.zeros(SIZE, np.complex64))
    elif kind == "flat":
        write(path, np.zeros((5, 6), np.int16))
    elif kind == "half label":
        write(folder / f"{folder.name}_seg.nii.gz", np.full(SIZE, 0.5, np.float32))
    elif kind == "far label":
        write(folder / f"{folder.name}_seg.nii.gz", np.full(SIZE, 300, np.int16))
    elif kind == "label shape":
        write(folder / f"{folder.name}_seg.nii.gz", np.zeros((5, 6, 5), np.uint8))
    elif kind == "twice":
        write(folder / "other_t1.nii", np.zeros(SIZE, np.int16))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "modality t1 is missing; it has BraTS_1_flair.nii.gz"),
        ("cut", "_t1.nii.gz cannot be read, it is damaged or cut short"),
        ("shape", "_t1.nii.gz is 5 x 6 x 5 voxels and .*_flair.nii.gz 5 x 6 x 4"),
        ("affine", "the affines of .*_t1.nii.gz and .*_flair.nii.gz differ by 0.5"),
        ("nan", "_t1.nii.gz: 1 of 120 voxels are NaN or infinite"),
        ("complex", "_t1.nii.gz holds complex64 values"),
        ("flat", "_t1.nii.gz holds 5 x 6 values; it must hold one volume"),
        ("half label", "_seg.nii.gz: labels must be whole numbers; it holds 0.5"),
        ("far label", "label 300 is out of range"),
        ("label shape", "_seg.nii.gz is 5 x 6 x 5 voxels"),
        ("twice", "has two files of t1"),
    ],
)
def test_bad_files(tmp_path: Path, kind: str, message: str) -> None:
    folder = brats(tmp_path)
    spoil(folder, kind)
    with pytest.raises(UserError, match=message):
        read(brats_case(folder))


def test_bad_lists(tmp_path: Path) -> None:
    file = tmp_path / "folds.json"
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "has no list 'training'"),
        ('{"training": []}', "lists no case"),
        ('{"training": [{"image": ["a.nii"]}]}', "names a.nii, and there is no file"),
        ('{"training": [{"label": "a.nii"}]}', "entry 0 of training has no proper 'image'"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            cases(file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no cases; it must be"):
        cases(tmp_path / "empty")
    with pytest.raises(UserError, match="there is no file"):
        read(volumes.Case("x", (tmp_path / "x.nii.gz",)))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_label_maps_keep_affine_and_header(tmp_path: Path, ending: str) -> None:
    folder = brats(tmp_path)
    like = folder / f"{folder.name}_t1.nii.gz"
    image = nibabel.load(like)
    image.header["descrip"] = b"a scanner"
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, like)
    labels = np.zeros(SIZE, np.uint8)
    labels[0, 1, 2] = 4
    found = nibabel.load(save(tmp_path / "out" / f"seg{ending}", labels, like))
    assert (np.asarray(found.dataobj) == labels).all() and found.get_data_dtype() == np.uint8
    assert (found.affine == AFFINE).all()
    assert found.header["descrip"] == b"a scanner" and found.header.get_xyzt_units() == ("mm", "sec")


def test_label_maps_of_four_axes_and_bad_endings(tmp_path: Path) -> None:
    like = write(tmp_path / "many.nii.gz", np.zeros((*SIZE, 4), np.float32))
    assert nibabel.load(save(tmp_path / "seg.nii.gz", np.ones(SIZE, np.uint8), like)).shape == SIZE
    with pytest.raises(UserError, match="it must end in .nii.gz or .nii"):
        save(tmp_path / "seg.png", np.ones(SIZE, np.uint8), like)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.nii.gz", "seg.nii.gz"]
