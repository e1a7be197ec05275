"""Photographs survive the way into a tensor and back; files that are none are refused in words."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from fovea.data import images, png16
from fovea.data.images import KEEPS, list_images, read, write, write_like


def levels(channels: int, bits: int = 8, size: tuple[int, int] = (7, 9)) -> torch.Tensor:
    """Random values that ``bits`` bits hold exactly."""
    return torch.randint(0, 2**bits, (channels, *size)).float() / (2**bits - 1)


@pytest.mark.parametrize(
    ("suffix", "channels", "alpha", "bits"), list(product(KEEPS, (1, 3), (False, True), (8, 16))), ids=str
)
def test_every_kind_comes_back(suffix: str, channels: int, alpha: bool, bits: int, tmp_path: Path) -> None:
    pixels, mask = levels(channels, bits), levels(1, bits) if alpha else None
    path = tmp_path / f"new folder/photo{suffix}"
    keeps_alpha, keeps_depth = KEEPS[suffix]
    if (alpha and not keeps_alpha) or (bits == 16 and not keeps_depth):
        with pytest.raises(ValueError, match="cannot keep"):
            write(path, pixels, alpha=mask, bits=bits)
        return
    write(path, pixels, alpha=mask, bits=bits)
    picture = read(path, channels)
    assert picture.bits == bits
    assert (picture.alpha is not None) == alpha
    assert picture.size == (7, 9)
    if suffix not in (".jpg", ".jpeg"):
        torch.testing.assert_close(picture.pixels, pixels, atol=2e-7, rtol=0)
        if mask is not None and picture.alpha is not None:
            assert torch.equal(picture.alpha, mask)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_profile_is_kept(suffix: str, bits: int, tmp_path: Path) -> None:
    if bits == 16 and not KEEPS[suffix][1]:
        pytest.skip("the format holds 8 bits")
    path = write(tmp_path / f"a{suffix}", levels(3, bits), bits=bits, profile=b"a profile" * 20)
    picture = read(path)
    assert picture.profile == b"a profile" * 20
    assert read(write_like(tmp_path / f"b{suffix}", picture.pixels, picture)).profile == picture.profile
    assert read(path, channels=1).profile is None


def test_written_like_the_original_and_larger(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", levels(3, 16), alpha=torch.full((1, 7, 9), 0.25), bits=16)
    larger = read(write_like(tmp_path / "b.png", torch.rand(3, 14, 18), read(path)))
    assert larger.bits == 16
    assert larger.alpha is not None
    torch.testing.assert_close(larger.alpha, torch.full((1, 14, 18), 0.25), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"])
def test_modes_of_pillow(mode: str, tmp_path: Path) -> None:
    original = Image.fromarray((levels(4).movedim(0, -1) * 255).byte().numpy())
    original = (original.convert("RGB") if mode == "P" else original).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "PA") else "a.png")
    original.save(path)
    picture = read(path)
    back = np.asarray(original.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    np.testing.assert_array_equal((picture.pixels * 255).round().byte().movedim(0, -1).numpy().squeeze(), back)
    assert (picture.alpha is not None) == (mode in ("LA", "PA", "RGBA"))


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_transparent_colour_becomes_alpha(mode: str, tmp_path: Path) -> None:
    original = Image.new(mode, (4, 3))
    original.save(tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    picture = read(tmp_path / "a.png")
    assert picture.alpha is not None
    assert bool((picture.alpha == 0).all())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int, tmp_path: Path) -> None:
    from PIL import ImageOps

    original = Image.fromarray((levels(3).movedim(0, -1) * 255).byte().numpy())
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = orientation
    for name in ("a.png", "a.webp", "a.tif"):
        options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
        original.save(tmp_path / name, exif=exif, **options)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name)))
        found = (read(tmp_path / name).pixels * 255).round().byte().movedim(0, -1).numpy()
        np.testing.assert_array_equal(found, upright)


def test_grey_and_colour_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 2, 2))
    torch.testing.assert_close(read(path, channels=1).pixels, torch.full((1, 2, 2), 0.299))
    path = write(tmp_path / "b.png", torch.ones(1, 2, 2))
    assert torch.equal(read(path, channels=3).pixels, torch.ones(3, 2, 2))
    with pytest.raises(ValueError, match="channels must be 1"):
        read(path, channels=4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiffs_of_sixteen_bits(order: Literal["<", ">"], compression: str | None, tmp_path: Path) -> None:
    values = (levels(3, 16) * 65535).round().movedim(0, -1).numpy().astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", byteorder=order, compression=compression)
    np.testing.assert_array_equal((read(tmp_path / "a.tif").pixels * 65535).round().movedim(0, -1).numpy(), values)
    tifffile.imwrite(tmp_path / "b.tif", values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal((read(tmp_path / "b.tif").pixels * 65535).round().movedim(0, -1).numpy(), values)
    tifffile.imwrite(tmp_path / "c.tif", values[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal((read(tmp_path / "c.tif").pixels[0] * 65535).round().numpy(), 65535 - values[..., 0])


def png(header: tuple[int, ...], body: bytes) -> bytes:
    chunk = png16._chunk
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b"")]
    return png16.SIGNATURE + b"".join(parts)


def filtered(values: np.ndarray) -> bytes:
    """The bytes of a PNG whose rows use the five filters in turn, made pixel by pixel as the specification says."""
    height, width, channels = values.shape
    size = 2 * channels
    plain = values.astype(">u2").view(np.uint8).reshape(height, width * size).astype(int)
    body = bytearray()
    for row in range(height):
        body.append(row % 5)
        for at in range(width * size):
            left = plain[row, at - size] if at >= size else 0
            up = plain[row - 1, at] if row else 0
            corner = plain[row - 1, at - size] if row and at >= size else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda neighbour: abs(guess - neighbour))
            body.append((plain[row, at] - (0, left, up, (left + up) // 2, paeth)[row % 5]) % 256)
    return bytes(body)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (11, 7), (6, 13)])
def test_png_filters(channels: int, size: tuple[int, int]) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (*size, channels)).astype(np.uint16)
    data = png((size[1], size[0], 16, png16.COLOUR_TYPE[channels], 0, 0, 0), filtered(values))
    np.testing.assert_array_equal(png16.decode(data)[0], values)
    if channels > 2:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), values >> 8)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (11, 18)])
def test_interlaced_png(size: tuple[int, int]) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (*size, 3)).astype(np.uint16)
    passes = [values[top::down, left::across] for top, left, down, across in png16.PASSES]
    data = png((size[1], size[0], 16, 2, 0, 0, 1), b"".join(filtered(part) for part in passes if part.size))
    np.testing.assert_array_equal(png16.decode(data)[0], values)


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "deep.tif"])
def test_cut_short_anywhere(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, levels(3, 8, (40, 30)), bits=16 if "deep" in name else 8)
    data = path.read_bytes()
    for length in (1, 4, 10, 30, len(data) // 3, len(data) // 2, len(data) * 9 // 10):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=str(path)):
            read(path)


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.tif", "deep.tif", "a.jpg"])
def test_damage_is_an_error_or_an_image(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, levels(3, 8, (16, 16)), bits=16 if "deep" in name else 8)
    data = path.read_bytes()
    draw = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[int(draw.integers(len(data)))] = int(draw.integers(256))
        path.write_bytes(bytes(damaged))
        try:
            picture = read(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert picture.pixels.ndim == 3


def test_files_that_are_no_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "missing.png")
    with pytest.raises(IsADirectoryError, match="a folder"):
        read(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match="empty"):
        read(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not an image at all")
    with pytest.raises(ValueError, match="not an image of a known format"):
        read(tmp_path / "text.png")


def test_films_are_refused(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 255)]
    for name in ("a.gif", "a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match="2 frames"):
            read(tmp_path / name)


def test_values_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif"):
        read(tmp_path / "a.tif")
    Image.fromarray(np.ones((3, 3), np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="b.tif"):
        read(tmp_path / "b.tif")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("side", [15_000, 60_000])
def test_decompression_bombs_are_refused(depth: int, side: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png((side, side, depth, 2, 0, 0, 0), bytes(1000)))
    with pytest.raises(ValueError, match="too many pixels"):
        read(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for pixels, match in (
        (torch.rand(2, 4, 4), "1 or 3"),
        (torch.rand(4, 4), "1 or 3"),
        (torch.rand(3, 0, 4), "1 or 3"),
        (torch.full((3, 4, 4), torch.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=match):
            write(tmp_path / "a.png", pixels)
    with pytest.raises(ValueError, match="must end in one of"):
        write(tmp_path / "a.gif", torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="alpha must be"):
        write(tmp_path / "a.png", torch.rand(3, 4, 4), alpha=torch.rand(1, 4, 5))
    with pytest.raises(ValueError, match="bits must be"):
        write(tmp_path / "a.png", torch.rand(3, 4, 4), bits=12)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bits", [8, 16])
def test_failed_write_leaves_the_old_file(bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.png", torch.zeros(3, 4, 4))
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, torch.ones(3, 4, 4), bits=bits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "inner/c.webp", ".hidden/d.png", ".e.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "notes.txt").touch()
    found = [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "inner/c.webp"]
    assert len(list_images(tmp_path, nested=False)) == 2
    with pytest.raises(FileNotFoundError, match="no such folder"):
        list_images(tmp_path / "none")
    with pytest.raises(NotADirectoryError, match="not a folder"):
        list_images(tmp_path / "a.jpg")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        list_images(tmp_path / "bare")
