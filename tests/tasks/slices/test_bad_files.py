"""What users' files may be wrong in, from the command line: one line that names the file, nothing written."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from fovea.cli.main import call

SHORT = ["optimisation.steps=1", "optimisation.batch=2", "data.size=48"]
Break = Callable[[Path], object]


def told(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The line on the error stream of a command that must fail with status 1."""
    capsys.readouterr()
    assert call(["--quiet", *words]) == 1
    text = capsys.readouterr().err.strip()
    assert text and "\n" not in text, text
    return text


def nifti(path: Path, array: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def hdf5(path: Path, **arrays: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def grey(path: Path, value: int) -> None:
    Image.fromarray(np.full((48, 48), value, np.uint8)).save(path)


def inflated(path: Path) -> None:
    """A whole gzip around half a NIfTI."""
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[: len(whole) // 2]))


DECATHLON: dict[str, tuple[str, Break, str]] = {
    "no label": ("labelsTr/a_1.nii.gz", Path.unlink, r"labelsTr/a_1.nii.gz"),
    "no image": ("imagesTr/a_1.nii.gz", Path.unlink, r"imagesTr/a_1.nii.gz"),
    "no description": ("dataset.json", lambda path: path.write_text("{"), "is no description of a Decathlon data set"),
    "mismatched": (
        "labelsTr/a_1.nii.gz",
        lambda path: nifti(path, np.zeros((40, 30, 3), np.uint8)),
        "is 3 x 40 x 36 (slices first) and its labels",
    ),
    "elsewhere": (
        "labelsTr/a_1.nii.gz",
        lambda path: nifti(path, np.zeros((40, 36, 3), np.uint8)),
        "differ by 2; they must lie at the same place",
    ),
    "out of range": (
        "labelsTr/a_1.nii.gz",
        lambda path: nifti(path, np.full((40, 36, 3), 7, np.uint8)),
        "a_1.nii.gz: label 7 is out of range; it must be 0 to 2",
    ),
    "negative": (
        "labelsTr/a_1.nii.gz",
        lambda path: nifti(path, np.full((40, 36, 3), -1, np.int16)),
        "a_1.nii.gz: label -1 is out of range",
    ),
    "half labels": (
        "labelsTr/a_1.nii.gz",
        lambda path: nifti(path, np.full((40, 36, 3), 0.5, np.float32)),
        "labels must be whole numbers, it holds 0.5",
    ),
    "cut gzip": ("imagesTr/a_1.nii.gz", cut, "a_1.nii.gz cannot be read, it is damaged or cut short"),
    "cut in the header": (
        "imagesTr/a_1.nii.gz",
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        "a_1.nii.gz cannot be read",
    ),
    "cut inside the gzip": ("imagesTr/a_1.nii.gz", inflated, "a_1.nii.gz cannot be read, it is damaged or cut short"),
    "empty": ("imagesTr/a_1.nii.gz", lambda path: path.write_bytes(b""), "a_1.nii.gz cannot be read"),
    "cut label": ("labelsTr/a_1.nii.gz", cut, "labelsTr/a_1.nii.gz cannot be read"),
    "nan": (
        "imagesTr/a_1.nii.gz",
        lambda path: nifti(path, np.full((40, 36, 3), np.nan, np.float32)),
        "4320 of 4320 voxels are NaN or infinite",
    ),
    "complex": (
        "imagesTr/a_1.nii.gz",
        lambda path: nifti(path, np.zeros((40, 36, 3), np.complex64)),
        "holds complex64 values",
    ),
    "four axes": (
        "imagesTr/a_1.nii.gz",
        lambda path: nifti(path, np.zeros((40, 36, 3, 2), np.float32)),
        "40 x 36 x 3 x 2 values; it must hold one slice or one volume",
    ),
    "held out": ("imagesTr/a_4.nii.gz", cut, "a_4.nii.gz cannot be read, it is damaged or cut short"),
}
SYNAPSE: dict[str, tuple[str, Break, str]] = {
    "no slice": ("train_npz/case0001_slice001.npz", Path.unlink, "case0001_slice001.npz"),
    "no label": (
        "train_npz/case0001_slice001.npz",
        lambda path: np.savez(path, image=np.zeros((48, 48))),
        "has no 'label'; it holds image",
    ),
    "mismatched": (
        "train_npz/case0001_slice001.npz",
        lambda path: np.savez(path, image=np.zeros((48, 48)), label=np.zeros((48, 40))),
        "is 1 x 48 x 48 (slices first) and its labels",
    ),
    "out of range": (
        "train_npz/case0001_slice001.npz",
        lambda path: np.savez(path, image=np.zeros((48, 48)), label=np.full((48, 48), 9.0)),
        "label 9 is out of range; it must be 0 to 8",
    ),
    "nan": (
        "train_npz/case0001_slice001.npz",
        lambda path: np.savez(path, image=np.full((48, 48), np.nan), label=np.zeros((48, 48))),
        "2304 of 2304 voxels are NaN or infinite",
    ),
    "pickle": (
        "train_npz/case0001_slice001.npz",
        lambda path: np.savez(path, image=np.array([{}], object), label=np.zeros((48, 48))),
        "case0001_slice001.npz cannot be read",
    ),
    "hounsfield units": (
        "train_npz/case0001_slice001.npz",
        lambda path: np.savez(path, image=np.full((48, 48), 400.0), label=np.zeros((48, 48))),
        "holds values from 400 to 400, where [0, 1] is expected",
    ),
    "cut npz": ("train_npz/case0001_slice001.npz", cut, "case0001_slice001.npz cannot be read"),
    "cut h5": ("test_vol_h5/case0002.npy.h5", cut, "case0002.npy.h5 cannot be read, it is damaged or cut short"),
    "h5 without labels": (
        "test_vol_h5/case0002.npy.h5",
        lambda path: hdf5(path, image=np.zeros((3, 48, 48))),
        "has no 'label'; it holds image",
    ),
    "no list": ("lists/lists_Synapse/train.txt", Path.unlink, "there is no list"),
}
LITS: dict[str, tuple[str, Break, str]] = {
    "no mask": ("trainMask_lits2017_png/volume-1.png", Path.unlink, "has no labels for volume-1.png"),
    "smoothed mask": (
        "trainMask_lits2017_png/volume-1.png",
        lambda path: grey(path, 75),
        "label 75 is out of range; it must be one of 0, 150, 255",
    ),
    "cut png": ("trainImage_lits2017_png/volume-1.png", cut, "volume-1.png cannot be read, it is damaged or cut short"),
    "colours": (
        "trainImage_lits2017_png/volume-1.png",
        lambda path: Image.fromarray(np.eye(48, dtype=np.uint8)[..., None] * np.uint8([1, 2, 3])).save(path),
        "is in colour; slices are grey",
    ),
}
ALL = [
    (layout, name, *told_of)
    for layout, breaks in (("decathlon", DECATHLON), ("synapse", SYNAPSE), ("lits", LITS))
    for name, told_of in breaks.items()
]


@pytest.mark.parametrize(
    ("layout", "file", "broken", "words"), [(a, *rest) for a, _, *rest in ALL], ids=[f"{a}-{b}" for a, b, *_ in ALL]
)
def test_training_on_a_bad_file_is_one_line_and_leaves_no_run(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    layout: str,
    file: str,
    broken: Break,
    words: str,
) -> None:
    data = Path(shutil.copytree(request.getfixturevalue(layout), tmp_path / "data"))
    broken(data / file)
    classes = [f"network.num_classes={9 if layout == 'synapse' else 3}"]
    text = told(capsys, ["train", "hbformer", "--data", str(data), "--out", str(tmp_path / "run"), *SHORT, *classes])
    assert words in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("layout", ["decathlon", "synapse"])
def test_evaluating_on_a_bad_file_leaves_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: Path, request: pytest.FixtureRequest, layout: str
) -> None:
    data = Path(shutil.copytree(request.getfixturevalue(layout), tmp_path / "data"))
    file = {"decathlon": "imagesTr/a_4.nii.gz", "synapse": "test_vol_h5/case0002.npy.h5"}[layout]
    cut(data / file)
    words = ["evaluate", "hbformer", "--checkpoint", str(checkpoint), "--data", str(data), "--out", str(tmp_path / "o")]
    assert "cannot be read, it is damaged or cut short" in told(capsys, words)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.nii.gz", lambda path: (nifti(path, np.zeros((40, 36, 3), np.float32)), cut(path)), "cut short"),
        ("a.nii.gz", lambda path: nifti(path, np.full((40, 36, 3), np.nan, np.float32)), "are NaN or infinite"),
        ("a.npz", lambda path: (np.savez(path, image=np.zeros((48, 48))), cut(path)), "cut short"),
        ("a.npz", lambda path: np.savez(path, picture=np.zeros((48, 48))), "has no 'image'; it holds picture"),
        ("a.h5", lambda path: (hdf5(path, image=np.zeros((3, 48, 48))), cut(path)), "cut short"),
        ("a.png", lambda path: path.write_bytes(b"no picture"), "cannot be read"),
        ("a.jpg", lambda path: path.write_bytes(b""), "it must end in"),
    ],
)
def test_a_bad_file_is_not_segmented(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: Path, name: str, make: Break, words: str
) -> None:
    make(tmp_path / name)
    out = tmp_path / "out" / ("seg.npz" if name != "a.nii.gz" else "seg.nii.gz")
    capsys.readouterr()
    assert call(
        ["--quiet", "predict", "hbformer", "--checkpoint", str(checkpoint), str(tmp_path / name), "-o", str(out)]
    ) in (1, 2)
    text = capsys.readouterr().err.strip()
    assert words in text and name in text and "\n" not in text
    assert not (tmp_path / "out").exists()


def test_a_bad_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((48, 48)))
    predict = ["predict", "hbformer", str(tmp_path / "a.npz"), "-o", str(tmp_path / "out" / "seg.npz")]
    broken = Path(shutil.copytree(checkpoint, tmp_path / "broken"))
    cut(broken / "model.safetensors")
    assert "broken" in told(capsys, [*predict, "--checkpoint", str(broken)])
    (tmp_path / "best.pth").write_bytes(b"no weights")
    assert "best.pth" in told(capsys, [*predict, "--checkpoint", str(tmp_path / "best.pth")])
    assert "best.pth" in told(capsys, ["convert", "hbformer", str(tmp_path / "best.pth"), "-o", str(tmp_path / "ours")])
    assert not (tmp_path / "out").exists() and not (tmp_path / "ours").exists()


def test_a_description_with_too_few_classes_is_told_with_the_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], decathlon: Path
) -> None:
    data = Path(shutil.copytree(decathlon, tmp_path / "data"))
    described = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**described, "labels": {"0": "background", "1": "organ"}}))
    words = ["train", "hbformer", "--data", str(data), "--out", str(tmp_path / "run"), *SHORT, "network.num_classes=2"]
    assert "label 2 is out of range; it must be 0 to 1" in told(capsys, words)
