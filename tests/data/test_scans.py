"""Slices and volumes from files and back; files that are broken are told by name."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from fovea.data import scans
from fovea.errors import UserError

AFFINE = np.array([[-1.5, 0, 0, 10], [0, 2, 0.1, -4], [0, 0, 3, 7], [0, 0, 0, 1.0]])


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)


def nifti(path: Path, array: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_is_cut_along_its_last_axis_or_another(tmp_path: Path, volume: np.ndarray, suffix: str) -> None:
    path = nifti(tmp_path / f"a.b{suffix}", volume)
    assert np.array_equal(scans.image(path), np.moveaxis(volume, 2, 0))
    assert np.array_equal(scans.image(path, axis=0), volume)
    assert (scans.depth(path), scans.depth(path, axis=1)) == (7, 6)
    assert (scans.stem(path), scans.ending(path)) == ("a.b", suffix)


def test_archives_and_hdf5_hold_slices_first(tmp_path: Path, volume: np.ndarray) -> None:
    labels = (volume > 0).astype(np.float32)
    np.savez(tmp_path / "s.npz", image=volume[0], label=labels[0])
    with h5py.File(tmp_path / "v.npy.h5", "w") as file:
        file["image"], file["label"] = volume, labels
    assert np.array_equal(scans.image(tmp_path / "s.npz"), volume[:1])
    assert np.array_equal(scans.labels(tmp_path / "s.npz", 2), labels[:1])
    assert np.array_equal(scans.image(tmp_path / "v.npy.h5"), volume)
    assert scans.labels(tmp_path / "v.npy.h5", 2).dtype == np.uint8
    assert (scans.depth(tmp_path / "s.npz"), scans.depth(tmp_path / "v.npy.h5")) == (1, 5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_is_a_slice_in_zero_to_one(tmp_path: Path, dtype: type) -> None:
    top = np.iinfo(dtype).max
    pixels = np.array([[0, top], [top // 3, top // 2]], dtype)
    Image.fromarray(pixels).save(tmp_path / "s.png")
    np.testing.assert_allclose(scans.image(tmp_path / "s.png")[0], pixels / top, atol=1e-6)
    Image.fromarray(np.zeros((2, 2, 3), np.uint8) + 9).save(tmp_path / "rgb.png")
    assert scans.image(tmp_path / "rgb.png").shape == (1, 2, 2)
    Image.fromarray(np.eye(3, dtype=np.uint8)[None]).save(tmp_path / "colour.png")
    with pytest.raises(UserError, match=r"colour\.png is in colour"):
        scans.image(tmp_path / "colour.png")


def test_labels_by_grey_values(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 150], [255, 150]], np.uint8)).save(tmp_path / "m.png")
    assert scans.labels(tmp_path / "m.png", 3, codes=(0, 150, 255)).tolist() == [[[0, 1], [2, 1]]]
    with pytest.raises(UserError, match=r"m\.png: label 150 is out of range; it must be 0 to 2 \(255: not known\)"):
        scans.labels(tmp_path / "m.png", 3)
    Image.fromarray(np.array([[0, 149]], np.uint8)).save(tmp_path / "smooth.png")
    with pytest.raises(UserError, match="label 149 is out of range; it must be one of 0, 150, 255"):
        scans.labels(tmp_path / "smooth.png", 3, codes=(0, 150, 255))


def test_labels_must_be_classes(tmp_path: Path, volume: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"x\.nii: labels must be whole numbers"):
        scans.labels(nifti(tmp_path / "x.nii", volume), 3)
    path = nifti(tmp_path / "y.nii", np.full((2, 2, 2), 3, np.int16))
    with pytest.raises(UserError, match="label 3 is out of range; it must be 0 to 2"):
        scans.labels(path, 3)
    assert scans.labels(path, 4).max() == 3
    assert scans.labels(nifti(tmp_path / "z.nii", np.full((2, 2, 2), 255, np.uint8)), 3).min() == 255


def test_a_label_map_keeps_affine_and_header(tmp_path: Path, volume: np.ndarray) -> None:
    source = nibabel.Nifti1Image(volume, AFFINE)
    source.header["descrip"] = b"a scan of something"
    source.header.set_xyzt_units("mm")
    source.set_qform(AFFINE, code=1)
    nibabel.save(source, tmp_path / "v.nii.gz")
    classes = np.random.default_rng(1).integers(0, 3, (7, 5, 6)).astype(np.uint8)
    out = scans.save(tmp_path / "deep" / "seg.nii.gz", classes, tmp_path / "v.nii.gz")
    found = nibabel.load(out)
    assert np.array_equal(found.affine, nibabel.load(tmp_path / "v.nii.gz").affine)
    assert found.header["descrip"] == source.header["descrip"]
    assert found.header.get_xyzt_units()[0] == "mm"
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(np.asanyarray(found.dataobj), np.moveaxis(classes, 0, 2))
    assert np.array_equal(scans.labels(out, 3), classes)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_axis_goes_back_where_it_came_from(tmp_path: Path, volume: np.ndarray, axis: int) -> None:
    path = nifti(tmp_path / "v.nii", volume)
    classes = (scans.image(path, axis=axis) > 0).astype(np.uint8)
    out = scans.save(tmp_path / "seg.nii", classes, path, axis=axis)
    assert np.array_equal(np.asanyarray(nibabel.load(out).dataobj), volume > 0)


def test_other_formats_out(tmp_path: Path) -> None:
    one, many = np.array([[[0, 1], [2, 1]]], np.uint8), np.ones((3, 2, 2), np.uint8)
    like = tmp_path / "x.npz"
    assert np.load(scans.save(tmp_path / "o.npz", one, like))["label"].tolist() == one[0].tolist()
    with h5py.File(scans.save(tmp_path / "o.h5", many, like)) as file:
        assert file["label"].shape == (3, 2, 2)
    with Image.open(scans.save(tmp_path / "o.png", one, like)) as picture:
        assert picture.mode == "P"
        assert np.array(picture).tolist() == one[0].tolist()
        assert np.array(picture.convert("RGB"))[0, 1].tolist() == list(scans.PALETTE[1])
    with pytest.raises(UserError, match="a PNG holds one slice, these are 3"):
        scans.save(tmp_path / "p.png", many, like)
    with pytest.raises(UserError, match="it must end in"):
        scans.save(tmp_path / "p.jpg", one, like)
    assert {path.name for path in tmp_path.iterdir()} == {"o.npz", "o.h5", "o.png"}


def not_finite(folder: Path) -> Path:
    array = np.zeros((3, 3, 3), np.float32)
    array[0, 1, 2] = np.nan
    return nifti(folder / "n.nii.gz", array)


def cut_gzip(folder: Path) -> Path:
    path = nifti(folder / "t.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20)))
    path.write_bytes(path.read_bytes()[:3000])
    return path


def no_gzip(folder: Path) -> Path:
    path = folder / "g.nii.gz"
    path.write_bytes(b"nothing like gzip" * 40)
    return path


def cut_inside(folder: Path) -> Path:
    """A whole gzip of half a file."""
    path = nifti(folder / "h.nii", np.zeros((20, 20, 20)))
    (folder / "h.nii.gz").write_bytes(gzip.compress(path.read_bytes()[:4000]))
    return folder / "h.nii.gz"


def cut_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "t.npz", image=np.random.default_rng(0).normal(size=(30, 30)))
    (folder / "t.npz").write_bytes((folder / "t.npz").read_bytes()[:2000])
    return folder / "t.npz"


def spoiled_npz(folder: Path) -> Path:
    np.savez(folder / "c.npz", image=np.zeros((30, 30)))
    content = bytearray((folder / "c.npz").read_bytes())
    content[1000] ^= 255
    (folder / "c.npz").write_bytes(content)
    return folder / "c.npz"


def cut_h5(folder: Path) -> Path:
    with h5py.File(folder / "t.h5", "w") as file:
        file["image"] = np.zeros((30, 30))
    (folder / "t.h5").write_bytes((folder / "t.h5").read_bytes()[:500])
    return folder / "t.h5"


def cut_png(folder: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (60, 60)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "t.png")
    (folder / "t.png").write_bytes((folder / "t.png").read_bytes()[:900])
    return folder / "t.png"


def complex_values(folder: Path) -> Path:
    return nifti(folder / "c.nii", np.zeros((2, 2, 2), np.complex64))


def four_axes(folder: Path) -> Path:
    return nifti(folder / "f.nii", np.zeros((2, 2, 2, 3), np.float32))


def no_image(folder: Path) -> Path:
    np.savez(folder / "e.npz", picture=np.zeros((3, 3)))
    return folder / "e.npz"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (not_finite, "1 of 27 voxels are NaN or infinite"),
        (cut_gzip, "damaged or cut short"),
        (no_gzip, "damaged or cut short"),
        (cut_inside, "damaged or cut short"),
        (cut_npz, "damaged or cut short"),
        (spoiled_npz, "damaged or cut short"),
        (cut_h5, "damaged or cut short"),
        (cut_png, "damaged or cut short"),
        (complex_values, "holds complex64 values"),
        (four_axes, "holds 2 x 2 x 2 x 3 values; it must hold one slice or one volume"),
        (no_image, "has no 'image'; it holds picture"),
        (lambda folder: folder / "none.nii", "there is no file"),
        (lambda folder: folder / "a.jpg", "it must end in .nii.gz"),
    ],
)
def test_broken_files_are_one_line(tmp_path: Path, broken: Callable[[Path], Path], words: str) -> None:
    path = broken(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        scans.image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
