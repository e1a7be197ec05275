"""Pairs are found in every layout, and what does not pair is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fovea.data.folders import pairs
from fovea.errors import UserError


def made(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


LAYOUTS = {
    "basicsr": ("GTmod2/{}.png", "LRbicx2/{}.png"),
    "swinir": ("HR/{}.png", "LR_bicubic/X2/{}x2.png"),
    "div2k": ("DIV2K_train_HR/{}.png", "DIV2K_train_LR_bicubic/X2/{}x2.png"),
    "gt": ("GT/{}.tif", "LR/{}.jpg"),
    "nested": ("HR/animals/{}.png", "LR_bicubic/X2/animals/{}x2.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    high, low = LAYOUTS[layout]
    made(tmp_path, *(form.format(name) for name in ("bird", "baby", "max2") for form in (high, low)))
    found = pairs(tmp_path, 2)
    inner = "animals/" if layout == "nested" else ""
    assert [files.name for files in found] == [f"{inner}{name}" for name in ("baby", "bird", "max2")]
    for files in found:
        name = Path(files.name).name
        assert files.high == tmp_path / high.format(name)
        assert files.low == tmp_path / low.format(name)


def test_name_that_ends_like_the_scale(tmp_path: Path) -> None:
    """An ending is taken from the degraded names alone; where both carry it, both are kept as they are."""
    made(tmp_path, "HR/ax2.png", "HR/a.png", "LR_bicubic/X2/ax2x2.png", "LR_bicubic/X2/ax2.png")
    assert [(files.name, files.low and files.low.name) for files in pairs(tmp_path, 2)] == [
        ("a", "ax2.png"),
        ("ax2", "ax2x2.png"),
    ]


def test_several_sets(tmp_path: Path) -> None:
    for name in ("Set5", "Set14"):
        made(tmp_path / name, "GTmod4/a.png", "LRbicx4/a.png")
    assert [files.name for files in pairs(tmp_path, 4)] == ["Set14/a", "Set5/a"]
    with pytest.raises(UserError, match=r"no images for scale 2; it holds GTmod4, LRbicx4"):
        pairs(tmp_path / "Set5", 2)


@pytest.mark.parametrize("inner", ["HR/", "GT/", "GTmod3/", "DIV2K_valid_HR/", "", "dogs/big/"])
@pytest.mark.parametrize("scale", [3, 1])
def test_clean_images_alone(inner: str, scale: int, tmp_path: Path) -> None:
    if scale == 1 and inner.startswith("GTmod"):
        inner = "GTmod1/"
    made(tmp_path, f"{inner}a.png")
    (files,) = pairs(tmp_path, scale)
    assert files.high == tmp_path / f"{inner}a.png"
    assert files.low is None


def test_scale_one_needs_no_degraded_images(tmp_path: Path) -> None:
    made(tmp_path, "HR/a.png", "LR_bicubic/X2/ax2.png")
    assert pairs(tmp_path, 1)[0].low is None
    assert pairs(tmp_path, 3)[0].low is None


def test_what_does_not_pair(tmp_path: Path) -> None:
    made(tmp_path / "low", "HR/a.png", "HR/b.png", "LR_bicubic/X2/ax2.png")
    with pytest.raises(UserError, match=r"X2 has no image for b"):
        pairs(tmp_path / "low", 2)
    made(tmp_path / "high", "HR/a.png", "LR_bicubic/X2/ax2.png", *(f"LR_bicubic/X2/c{i}x2.png" for i in range(7)))
    with pytest.raises(UserError, match=r"HR has no image for c0, c1, c2, c3, c4 and 2 more"):
        pairs(tmp_path / "high", 2)
    made(tmp_path / "twice", "a.png", "a.jpg")
    with pytest.raises(UserError, match="same name"):
        pairs(tmp_path / "twice", 2)
    made(tmp_path / "several", "DIV2K_train_HR/a.png", "DIV2K_valid_HR/a.png")
    with pytest.raises(UserError, match="several sets"):
        pairs(tmp_path / "several", 2)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        pairs(tmp_path / "none", 2)
    with pytest.raises(UserError, match="holds no image"):
        pairs(tmp_path, 2)
    with pytest.raises(UserError, match="is a file"):
        pairs(made(tmp_path, "a.png") / "a.png", 2)
    (tmp_path / "bare" / "HR").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no image"):
        pairs(tmp_path / "bare", 2)


def test_set5(shared_data: Path) -> None:
    found = pairs(shared_data / "set5", 3)
    assert [files.name for files in found] == ["baby", "bird", "butterfly", "head", "woman"]
    assert all(files.low is not None for files in found)
