"""``fovea predict`` on whole scenes: what comes out of good files, and one line about each bad one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile
import torch
from PIL import Image

from fovea import checkpoints
from fovea.cli.main import call
from fovea.data.hyperspectral.features import fit
from fovea.models.lola_specvit import LoLASpecViT
from fovea.models.lola_specvit_config import LoLASpecViTConfig

BANDS, SIDE = 12, 20
NETWORK = LoLASpecViTConfig(
    in_channels=3,
    num_classes=3,
    dim=4,
    depths=(1,),
    num_heads=(1,),
    window_size=(2,),
    mlp_ratio=1.0,
    spatial_size=5,
    r=1,
    lora_alpha=2.0,
    front=(2, 2),
    squeeze=1,
)


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    generator = np.random.default_rng(0)
    return 100 * generator.random((SIDE, SIDE + 3, BANDS), dtype=np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, cube: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "checkpoint"
    torch.manual_seed(0)
    extra = {
        "components": fit(cube.reshape(-1, BANDS), 3).to_dict(),
        "standardise": "scene",
        "average_turns": False,
        "classes": ["soil", "corn", "water"],
        "numbers": [1, 2, 5],
    }
    checkpoints.save(folder, LoLASpecViT(NETWORK), NETWORK, extra)
    return folder


def envi(path: Path, cube: np.ndarray, kind: int) -> Path:
    """A pair of files, bands interleaved by line, placed on the Earth."""
    path.with_suffix(".img").write_bytes(np.ascontiguousarray(cube.transpose(0, 2, 1)).tobytes())
    rows, columns, bands = cube.shape
    path.write_text(
        f"ENVI\nlines = {rows}\nsamples = {columns}\nbands = {bands}\ndata type = {kind}\ninterleave = bil\n"
        "byte order = 0\nmap info = {UTM, 1, 1, 500000, 4100000, 20, 20, 11, North, WGS-84, units=Meters}\n"
    )
    return path


def predict(checkpoint: Path, scene: Path, out: Path, *words: str) -> int:
    return call(["--quiet", "predict", "lola-specvit", "-c", str(checkpoint), str(scene), "-o", str(out), *words])


def test_a_scene_on_the_earth_gives_a_map_there(checkpoint: Path, cube: np.ndarray, tmp_path: Path) -> None:
    scene = envi(tmp_path / "scene.hdr", cube, 4)
    assert predict(checkpoint, scene, tmp_path / "map.tif", "tile=7") == 0
    assert predict(checkpoint, scene, tmp_path / "map.png") == 0
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        page = file.pages[0]
        assert page.shape == (SIDE, SIDE + 3)
        assert page.tags["ModelTiepointTag"].value == (0, 0, 0, 500000, 4100000, 0)
        assert page.tags["ModelPixelScaleTag"].value == (20, 20, 0)
        assert 32611 in page.tags["GeoKeyDirectoryTag"].value
        assert json.loads(page.description) == {"classes": {"1": "soil", "2": "corn", "5": "water"}}
        assert set(np.unique(page.asarray())) <= {1, 2, 5}
    with Image.open(tmp_path / "map.png") as picture:
        factor = 640 // (SIDE + 3)
        assert picture.size[0] > factor * (SIDE + 3), "the legend stands beside the map"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.png", "map.tif", "scene.hdr", "scene.img"]


@pytest.mark.parametrize(("kind", "dtype"), [(2, "<i2"), (12, "<u2"), (5, "<f8")])
def test_other_numbers_are_read_for_what_they_are(
    checkpoint: Path, cube: np.ndarray, tmp_path: Path, kind: int, dtype: str
) -> None:
    whole = np.round(cube)
    found = []
    for name, number, values in (("plain", 4, whole.astype("<f4")), ("other", kind, whole.astype(dtype))):
        scene = envi(tmp_path / f"{name}.hdr", values, number)
        assert predict(checkpoint, scene, tmp_path / f"{name}.tif") == 0
        found.append(tifffile.imread(tmp_path / f"{name}.tif"))
    assert np.array_equal(*found)


def bad_scenes(cube: np.ndarray, folder: Path) -> dict[str, tuple[Path, str]]:
    """Files by what is wrong with them, and what must be said of each."""
    holes = cube.copy()
    holes[4, 5, 6] = np.nan
    endless = cube.copy()
    endless[2, 3, 0] = np.inf
    np.save(folder / "fewer.npy", cube[..., :-1])
    np.save(folder / "holes.npy", holes)
    np.save(folder / "text.npy", np.full((9, 9, BANDS), "a"))
    np.save(folder / "small.npy", cube[:, :4])
    np.save(folder / "flat.npy", cube[..., 0])
    tifffile.imwrite(folder / "endless.tif", np.ascontiguousarray(endless.transpose(2, 0, 1)), photometric="minisblack")
    scipy.io.savemat(folder / "complex.mat", {"radar": cube.astype(np.complex64)})
    (folder / "noise.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(range(256)))
    cut = envi(folder / "cut.hdr", cube, 4)
    cut.with_suffix(".img").write_bytes(cut.with_suffix(".img").read_bytes()[:-40])
    alone = envi(folder / "alone.hdr", cube, 4)
    alone.with_suffix(".img").unlink()
    return {
        "fewer bands": (folder / "fewer.npy", "fewer has 11 bands; the checkpoint was trained on 12"),
        "NaN": (folder / "holes.npy", "NaN or infinity, first at row 4, column 5"),
        "infinity": (folder / "endless.tif", "NaN or infinity, first at row 2, column 3"),
        "complex": (folder / "complex.mat", "radar [20 x 23 x 12] holds complex numbers"),
        "complex ENVI": (
            envi(folder / "radar.hdr", cube.astype(np.complex64), 6),
            "radar [20 x 23 x 12] holds complex numbers",
        ),
        "no numbers": (folder / "text.npy", "spectra are whole or floating-point numbers"),
        "smaller than a patch": (folder / "small.npy", "small has 20 x 4 pixels; it is smaller than a patch of 5 x 5"),
        "no cube": (folder / "flat.npy", "a cube has 3 axes, and no array in it has"),
        "no MATLAB": (folder / "noise.mat", "it is damaged or cut short"),
        "cut short": (cut, "is cut short: 22040 bytes; cut.hdr promises 22080"),
        "no data": (alone, "has no data beside it"),
        "unknown type": (envi(folder / "kind.hdr", cube, 7), "data type = 7"),
    }


def test_a_bad_scene_is_one_line_and_nothing_is_written(
    checkpoint: Path, cube: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for wrong, (scene, words) in bad_scenes(cube, scenes).items():
        for ending in ("png", "tif"):
            out = tmp_path / "out" / f"map.{ending}"
            capsys.readouterr()
            assert predict(checkpoint, scene, out) in (1, 2), wrong
            said = capsys.readouterr()
            assert said.out == ""
            assert words in said.err, wrong
            assert said.err.count("\n") == 1, wrong
            assert not out.parent.exists(), wrong


def test_of_several_scenes_a_bad_one_leaves_the_good_ones_whole(
    checkpoint: Path, cube: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "good.npy", cube)
    np.save(tmp_path / "fewer.npy", cube[..., :-1])
    files = [str(tmp_path / name) for name in ("good.npy", "fewer.npy")]
    words = ["--quiet", "predict", "lola-specvit", "-c", str(checkpoint), *files, "-o", str(tmp_path / "maps")]
    assert call(words) == 1
    assert "fewer has 11 bands" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["good-map.png"]
