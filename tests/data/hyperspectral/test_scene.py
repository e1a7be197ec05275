"""Scenes as people have them on disk: every format gives the same cube, and what is no scene is told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from fovea.data.hyperspectral import tiff
from fovea.data.hyperspectral.georeference import KEYS, PIXEL_SCALE, TIEPOINT
from fovea.data.hyperspectral.scene import read_pair, read_scene, with_labels
from fovea.data.hyperspectral.variables import variables
from fovea.errors import UserError

CUBE = np.arange(5 * 7 * 4, dtype=np.int16).reshape(5, 7, 4)
LABELS = (np.arange(35).reshape(5, 7) % 4).astype(np.uint8)


def matlab5(path: Path, **arrays: Any) -> None:
    scipy.io.savemat(path, arrays)


def matlab73(path: Path, **arrays: Any) -> None:
    """As MATLAB writes it: HDF5 behind 512 bytes, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = np.asarray(array).transpose()
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))


def envi(path: Path, cube: np.ndarray, interleave: str = "bsq", order: int = 0, more: str = "") -> None:
    kinds = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "c8": 6, "u2": 12, "u4": 13, "i8": 14, "u8": 15}
    axes = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[interleave]
    raw = cube.transpose(axes).astype(cube.dtype.newbyteorder(">" if order else "<"))
    path.with_suffix("").write_bytes(b"head" + raw.tobytes())
    path.write_text(
        f"ENVI\ndescription = {{\n a scene}}\nsamples = {cube.shape[1]}\nlines = {cube.shape[0]}\n"
        f"bands = {cube.shape[2]}\nheader offset = 4\ndata type = {kinds[cube.dtype.str[1:]]}\n"
        f"interleave = {interleave}\nbyte order = {order}\n{more}"
    )


WRITERS: dict[str, Callable[[Path], Path]] = {
    "mat 5": lambda folder: (matlab5(folder / "s.mat", s=CUBE, other=np.eye(3)), folder / "s.mat")[1],
    "mat 7.3": lambda folder: (matlab73(folder / "s.mat", s=CUBE, other=np.eye(3)), folder / "s.mat")[1],
    "npy": lambda folder: (np.save(folder / "s.npy", CUBE), folder / "s.npy")[1],
    "npz": lambda folder: (np.savez(folder / "s.npz", s=CUBE, w=np.arange(4)), folder / "s.npz")[1],
    "tiff, bands last": lambda folder: (
        tifffile.imwrite(folder / "s.tif", CUBE, planarconfig="contig", photometric="minisblack"),
        folder / "s.tif",
    )[1],
    "tiff, planes": lambda folder: (
        tifffile.imwrite(folder / "s.tif", CUBE.transpose(2, 0, 1), planarconfig="separate", photometric="minisblack"),
        folder / "s.tif",
    )[1],
    "tiff, pages": lambda folder: (
        tifffile.imwrite(folder / "s.tiff", CUBE.transpose(2, 0, 1), photometric="minisblack", compression="zlib"),
        folder / "s.tiff",
    )[1],
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_cube(kind: str, tmp_path: Path) -> None:
    scene = read_scene(WRITERS[kind](tmp_path))
    np.testing.assert_array_equal(scene.cube, CUBE)
    assert scene.name == "s"
    assert scene.pixels(np.array([8])).dtype == np.float32
    np.testing.assert_array_equal(scene.pixels(np.array([8]))[0], CUBE[1, 1])
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in scene.strips()]), CUBE)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8", "u2", "u4", "i8", "u8"])
def test_envi(interleave: str, order: int, kind: str, tmp_path: Path) -> None:
    cube = CUBE.astype(kind)
    envi(tmp_path / "s.hdr", cube, interleave, order)
    for given in (tmp_path / "s.hdr", (tmp_path / "s").rename(tmp_path / "s.img")):
        np.testing.assert_array_equal(read_scene(given).cube, cube)


def test_places_on_earth_are_kept(tmp_path: Path) -> None:
    envi(tmp_path / "s.hdr", CUBE, more="map info = {UTM, 1, 1, 560000, 4140000, 20, 20, 10, North, WGS-84}\n")
    place = read_scene(tmp_path / "s.hdr").place
    assert place is not None
    assert place.tags[TIEPOINT] == (0, 0, 0, 560000, 4140000, 0)
    assert place.tags[KEYS][-1] == 32610
    tiff.write(tmp_path / "map.tif", LABELS, place, "{}")
    again = tiff.read(tmp_path / "map.tif")
    np.testing.assert_array_equal(again.array, LABELS)
    assert again.place is not None
    assert again.place.tags[PIXEL_SCALE] == (20.0, 20.0, 0.0)
    assert tuple(again.place.tags[KEYS]) == place.tags[KEYS]


@pytest.mark.parametrize("write", [matlab5, matlab73])
def test_pairs_are_found_by_name_and_rank(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path / "Fields_corrected.mat", fields_corrected=CUBE, spectrum=np.ones((7, 5)))
    write(tmp_path / "Fields_gt.mat", fields_gt=LABELS, wavelengths=np.ones((5, 7)) / 3, sizes=np.ones((1, 4)))
    for given in (tmp_path, tmp_path / "Fields_corrected.mat"):
        scene = read_pair(given)
        np.testing.assert_array_equal(scene.cube, CUBE)
        np.testing.assert_array_equal(scene.labels, LABELS)
        assert scene.classes == ("class 1", "class 2", "class 3")


def test_cube_and_labels_in_one_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", cube=CUBE, labels=LABELS)
    scene = read_pair(tmp_path / "both.npz", names=("wheat", "oats", "rye"))
    np.testing.assert_array_equal(scene.labels, LABELS)
    assert scene.classes == ("wheat", "oats", "rye")


def test_numbers_that_are_left_out_are_remembered(tmp_path: Path) -> None:
    matlab5(tmp_path / "s.mat", s=CUBE)
    matlab5(tmp_path / "s_gt.mat", s_gt=np.array([0, 3, 7, 40])[LABELS].astype(np.float64))
    scene = read_pair(tmp_path)
    np.testing.assert_array_equal(scene.labels, LABELS)
    assert scene.numbers == (3, 7, 40)


def test_abundances_are_labels_when_named(tmp_path: Path) -> None:
    matlab5(tmp_path / "s.mat", s=CUBE)
    share = np.random.default_rng(0).random((5, 7, 3))
    matlab5(tmp_path / "s_gt.mat", abundance=share, s_gt=LABELS)
    np.testing.assert_array_equal(read_pair(tmp_path, label_key="abundance").labels, share.argmax(-1) + 1)


def test_jasper_ridge(shared_data: Path) -> None:
    scene = read_pair(shared_data / "jasper_ridge")
    assert scene.cube.shape == (100, 100, 198)
    assert scene.cube.dtype == np.uint16
    assert np.bincount(scene.labels.ravel()).tolist() == [1851, 2834, 3259, 1534, 522]


def test_label_maps_of_published_scenes(shared_data: Path) -> None:
    for name, shape in (("Indian_pines_gt", (145, 145)), ("Salinas_gt", (512, 217))):
        (found,) = variables(shared_data / "hsi_label_maps" / f"{name}.mat")
        assert found.shape == shape


def broken(folder: Path, cube: Any = CUBE, labels: Any = LABELS) -> Path:
    np.savez(folder / "s.npz", s=cube)
    np.savez(folder / "s_gt.npz", s_gt=labels)
    return folder


NAN = np.where(CUBE == 60, np.nan, CUBE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: broken(f, cube=CUBE + 1j), "holds complex numbers; spectra are real"),
        (lambda f: broken(f, cube=CUBE > 3), "holds bool; spectra are whole or floating-point numbers"),
        (lambda f: broken(f, cube=NAN), "NaN or infinity, first at row 2, column 1"),
        (lambda f: broken(f, cube=CUBE[..., 0]), r"a cube has 3 axes, and no array in it has; it holds s \[5 x 7\]"),
        (lambda f: broken(f, labels=LABELS[:4]), r"s_gt \[4 x 7\] does not fit the scene, which has 5 x 7 pixels"),
        (lambda f: broken(f, labels=LABELS / 3), "no whole numbers; labels are"),
        (lambda f: broken(f, labels=LABELS.astype(int) - 1), r"holds -1; labels are 0 \(unlabelled\) and above"),
        (lambda f: broken(f, labels=LABELS * 0), "has 0 classes; at least 2 are needed"),
        (lambda f: broken(f, labels=np.ones(4)), "a label map has 2 axes, and no array in it has"),
        (
            lambda f: f,
            "must hold one scene and its label map, named like Scene.mat and Scene_gt.mat; it has no such file",
        ),
    ],
)
def test_what_is_no_scene(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_pair(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["s.mat", "s.npy", "s.npz", "s.tif", "s.hdr"])
@pytest.mark.parametrize("content", [b"", b"no such thing at all" * 40])
def test_damaged_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_scene(tmp_path / name)


@pytest.mark.parametrize("write", [matlab5, matlab73])
def test_files_cut_short(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path / "s.mat", s=np.random.default_rng(0).random((40, 40, 9)))
    whole = (tmp_path / "s.mat").read_bytes()
    (tmp_path / "s.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="s.mat cannot be read; it is damaged or cut short"):
        read_scene(tmp_path / "s.mat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("lines = 5", "lines = 50"), "s is cut short: 284 bytes; s.hdr promises 2804"),
        (("data type = 2", "data type = 7"), "data type = 7, interleave = bsq; there are 1, 2"),
        (("interleave = bsq", "interleave = bxx"), "interleave = bxx"),
        (("byte order = 0", "byte order = 2"), "byte order = 2; it must be 0"),
        (("samples = 7", "samples = many"), "samples = many; it must be a whole number"),
        (("ENVI", "ELSE"), "it does not begin with the word ENVI"),
    ],
)
def test_headers_that_contradict(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    envi(tmp_path / "s.hdr", CUBE)
    header = tmp_path / "s.hdr"
    header.write_text(header.read_text().replace(*change))
    with pytest.raises(UserError, match=message):
        read_scene(header)


def test_halves_of_envi_files_and_other_kinds(tmp_path: Path) -> None:
    envi(tmp_path / "s.hdr", CUBE)
    (tmp_path / "s").unlink()
    with pytest.raises(UserError, match=r"has no data beside it: there is no s, s.raw, s.img"):
        read_scene(tmp_path / "s.hdr")
    (tmp_path / "t.img").write_bytes(b"1")
    with pytest.raises(UserError, match=r"needs its header beside it: t.hdr"):
        read_scene(tmp_path / "t.img")
    (tmp_path / "t.csv").write_text("1")
    with pytest.raises(UserError, match=r"these files are read: .mat, .npy"):
        read_scene(tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError):
        read_scene(tmp_path / "none.mat")


def test_names_that_are_not_in_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", scene=CUBE, a=LABELS, b=LABELS)
    with pytest.raises(UserError, match="unknown array in s.npz 'scnee'; did you mean scene"):
        read_scene(tmp_path / "s.npz", "scnee")
    scene = read_scene(tmp_path / "s.npz")
    with pytest.raises(UserError, match=r"more than one array may be the label map .*data.label_key=NAME"):
        with_labels(scene, tmp_path / "s.npz")
    assert with_labels(scene, tmp_path / "s.npz", "b").labels is not None
    with pytest.raises(UserError, match="data.classes has 1 names"):
        with_labels(scene, tmp_path / "s.npz", "b", ("wheat",))
