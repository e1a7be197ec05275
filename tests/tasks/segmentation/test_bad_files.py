"""Bad files from the command line: one line that names the file, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fovea.cli.main import call
from fovea.tasks.segmentation import start
from fovea.tasks.segmentation.config import VolumesConfig
from fovea.tasks.segmentation.learner import Segmenter
from fovea.tasks.segmentation.sources import generated

nibabel = pytest.importorskip("nibabel")

SIZE, AFFINE = (20, 18, 16), np.diag([1.0, 1.0, 2.0, 1.0])
"""Of the cases that ``brats`` writes."""


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def missing(case: Path) -> None:
    (case / f"{case.name}_t2.nii.gz").unlink()


def shape(case: Path) -> None:
    write(case / f"{case.name}_t2.nii.gz", np.ones((20, 18, 15), np.float32))


def affine(case: Path) -> None:
    write(case / f"{case.name}_t2.nii.gz", np.ones(SIZE, np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))


def truncated(case: Path) -> None:
    path = case / f"{case.name}_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])


def nan(case: Path) -> None:
    array = np.ones(SIZE, np.float32)
    array[3, 4, 5] = np.nan
    write(case / f"{case.name}_t2.nii.gz", array)


def label(case: Path) -> None:
    array = np.zeros(SIZE, np.uint8)
    array[3, 4, 5] = 3
    write(case / f"{case.name}_seg.nii.gz", array)


def label_shape(case: Path) -> None:
    write(case / f"{case.name}_seg.nii.gz", np.zeros((20, 18, 15), np.uint8))


IMAGES = [
    (missing, "BraTS_002: modality t2 is missing"),
    (shape, "BraTS_002_t2.nii.gz is 20 x 18 x 15 voxels and"),
    (affine, "the affines of"),
    (truncated, "BraTS_002_t2.nii.gz cannot be read, it is damaged or cut short"),
    (nan, "BraTS_002_t2.nii.gz: 1 of 5760 voxels are NaN or infinite"),
]
LABELS = [
    (label, "BraTS_002: label 3 is out of range; coding brats has 0, 1, 2, 4"),
    (label_shape, "BraTS_002_seg.nii.gz is 20 x 18 x 15 voxels and"),
]
WORDS = [
    *("network.feature_size=4", "network.depths=2,1,1,1", "network.num_heads=1,1,2,2", "network.window_size=2"),
    *("data.roi=16,16,16", "hardware.accelerator=cpu", "optimisation.steps=1", "optimisation.batch=1"),
]


def refused(capsys: pytest.CaptureFixture[str], message: str, *words: object) -> None:
    """The command ends with 1 and says ``message`` in its one line."""
    capsys.readouterr()
    assert call([str(word) for word in words]) == 1
    said = capsys.readouterr()
    (line,) = said.err.strip().splitlines()
    assert message in line and said.out == ""


@pytest.fixture
def checkpoint(config: VolumesConfig, tmp_path: Path) -> Path:
    network = start.begin(config, None)[0]
    Segmenter(network, generated(config), config, lambda _: {}).save(network, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(("spoil", "message"), [*IMAGES, *LABELS])
@pytest.mark.parametrize("held_out", [1, 2])
def test_train(
    brats: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    message: str,
    held_out: int,
) -> None:
    """Whether the bad case is learned from or held out (the last ones are)."""
    spoil(brats / "BraTS_002")
    if held_out == 1:
        for path in (brats / "BraTS_001").iterdir():
            path.rename(path.with_name(path.name.replace("001", "003")))
        (brats / "BraTS_001").rename(brats / "BraTS_003")
    words = [*WORDS, f"data.held_out={held_out}"]
    refused(capsys, message, "-q", "train", "swin-unetr", "--data", brats, "--out", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("spoil", "message"), [*IMAGES, *LABELS])
def test_evaluate(
    checkpoint: Path,
    brats: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    spoil(brats / "BraTS_002")
    words = ["--checkpoint", checkpoint, "--data", brats, "--out", tmp_path / "run", "hardware.accelerator=cpu"]
    refused(capsys, message, "-q", "evaluate", "swin-unetr", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("spoil", "message"), IMAGES)
def test_predict(
    checkpoint: Path,
    brats: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    spoil(brats / "BraTS_002")
    case, out = brats / "BraTS_002", tmp_path / "out" / "seg.nii.gz"
    refused(capsys, message, "-q", "predict", "swin-unetr", "--checkpoint", checkpoint, case, "-o", out)
    assert not out.parent.exists()


def test_headers_are_looked_at_before_the_first_case_is_segmented(
    checkpoint: Path, brats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncated(brats / "BraTS_002")
    out = tmp_path / "out"
    refused(capsys, "cut short", "-q", "predict", "swin-unetr", "--checkpoint", checkpoint, brats, "-o", out)
    assert not out.exists()


def test_data_larger_than_the_cache_are_told_apart_by_their_headers(
    config: VolumesConfig, brats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncated(brats / "BraTS_002")
    words = [*WORDS, "data.held_out=1", "data.cache=0"]
    refused(capsys, "cut short", "-q", "train", "swin-unetr", "--data", brats, "--out", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()
