"""Photographs in and out of files: any mode and depth, as tensors in [0, 1], written back the way they came."""

from __future__ import annotations

import logging
import os
import struct
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fovea.data import png16
from fovea.errors import MissingExtra

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# What each format can keep: (alpha, 16 bits).
KEEPS = {
    ".png": (True, True),
    ".tif": (True, True),
    ".tiff": (True, True),
    ".webp": (True, False),
    ".jpg": (False, False),
    ".jpeg": (False, False),
    ".bmp": (False, False),
}
MAX_PIXELS = 178_000_000
EXIF_ORIENTATION = 274
SILENT = logging.NullHandler()
"""What tifffile tells its log of a damaged file is in our error; without a handler it would be printed as well."""
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Picture:
    """A photograph.

    Attributes:
        pixels: ``[channels, height, width]`` float32 in [0, 1]; 1 channel (grey) or 3 (RGB), upright.
        alpha: ``[1, height, width]`` in [0, 1], or None.
        bits: bits a channel in the file, 8 or 16.
        profile: the ICC colour profile, or None.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    profile: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def keeps_in(self, path: Path | str) -> bool:
        """Whether the format of ``path`` holds its alpha and depth."""
        alpha, deep = KEEPS.get(Path(path).suffix.lower(), (False, False))
        return (alpha or self.alpha is None) and (deep or self.bits == 8)


def read(path: Path | str, channels: int | None = None) -> Picture:
    """Read one still image: PNG, JPEG, WebP, BMP or TIFF; 8 or 16 bits; grey, RGB or palette, with or without alpha.

    EXIF orientation is applied. Palette and CMYK images become RGB.

    Args:
        path: the file.
        channels: 1 or 3 to have grey (BT.601 luma) or RGB whatever the file holds; None keeps the file's own.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: as the operating system says.
        ValueError: not an image, damaged, cut short, several frames, too many pixels, or a mode without [0, 1] range.
    """
    path = Path(path)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 (grey), 3 (RGB) or None (as in the file), not {channels}")
    data = _bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array, profile = _decode(data)
    except (OSError, SyntaxError, struct.error, EOFError, OverflowError, MemoryError, IndexError) as error:
        raise ValueError(f"{path}: the image is damaged or cut short: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    bits = 8 * array.dtype.itemsize
    values = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1).div_(2**bits - 1).contiguous()
    alpha = values[-1:] if len(values) in (2, 4) else None
    pixels = values if alpha is None else values[:-1]
    if channels is not None and channels != len(pixels):
        pixels, profile = (grey(pixels) if channels == 1 else pixels.expand(3, -1, -1)), None
    return Picture(pixels.contiguous(), alpha, bits, profile)


def grey(pixels: Tensor) -> Tensor:
    """``[..., 3, height, width]`` RGB to ``[..., 1, height, width]``: 0.299 R + 0.587 G + 0.114 B (BT.601)."""
    red, green, blue = pixels.unbind(-3)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)


def write(
    path: Path | str,
    pixels: Tensor,
    *,
    alpha: Tensor | None = None,
    bits: int = 8,
    profile: bytes | None = None,
    quality: int = 95,
) -> Path:
    """Write an image in the format of the file name, all or nothing: a file that was there survives every failure.

    Args:
        path: ends in .png, .tif, .tiff, .webp, .jpg, .jpeg or .bmp; the folder is made if need be.
        pixels: ``[1 or 3, height, width]``; clipped to [0, 1].
        alpha: ``[1, height, width]``, or None.
        bits: 8 or 16 a channel.
        profile: ICC colour profile to write into the file.
        quality: of JPEG, 1 to 100. WebP is written without loss.

    Raises:
        ValueError: shapes, NaN, or a format that cannot keep the alpha or the depth.
        OSError: as the operating system says (no space, no permission).
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in KEEPS:
        raise ValueError(f"{path}: the name must end in one of {', '.join(KEEPS)}, not {path.suffix!r}")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels must be [1 or 3, height, width], not {list(pixels.shape)}")
    if alpha is not None and alpha.shape != (1, *pixels.shape[1:]):
        raise ValueError(f"alpha must be {[1, *pixels.shape[1:]]} like the pixels, not {list(alpha.shape)}")
    if bits not in (8, 16):
        raise ValueError(f"bits must be 8 or 16, not {bits}")
    if not Picture(pixels, alpha, bits).keeps_in(path):
        lost = "16 bits" if bits == 16 and not KEEPS[suffix][1] else "an alpha channel"
        raise ValueError(f"{path}: {suffix} files cannot keep {lost}; write a .png or .tif")
    values = torch.cat([pixels] if alpha is None else [pixels, alpha]).detach().cpu().double()
    if bool(values.isnan().any()):
        raise ValueError(f"{path}: the image holds NaN")
    levels = values.clamp(0, 1).mul(2**bits - 1).round().permute(1, 2, 0).numpy()
    array = np.ascontiguousarray(levels.astype(np.uint8 if bits == 8 else np.uint16))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        _encode(file, array, suffix, profile, quality)
    return path


def write_like(path: Path | str, pixels: Tensor, original: Picture) -> Path:
    """Write ``pixels`` with the depth, the colour profile and the alpha (resized if need be) of ``original``."""
    from fovea.data.resize import imresize

    alpha = original.alpha
    if alpha is not None and alpha.shape[1:] != pixels.shape[1:]:
        alpha = imresize(alpha, size=(pixels.shape[1], pixels.shape[2])).clamp(0, 1)
    profile = original.profile if len(pixels) == len(original.pixels) else None
    return write(path, pixels, alpha=alpha, bits=original.bits, profile=profile)


def list_images(folder: Path | str, *, nested: bool = True) -> list[Path]:
    """The image files of a folder (and of those inside it), sorted by path; hidden ones are left out.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
        ValueError: it holds no image.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: not a folder")
    found = sorted(
        path
        for path in (folder.rglob("*") if nested else folder.iterdir())
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise ValueError(f"{folder}: holds no image ({', '.join(SUFFIXES)})")
    return found


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends well, and leaves no trace otherwise."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("reading and writing images", "pillow", "restoration") from error
    return Image


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtra("a TIFF file of 16 bits", "tifffile", "restoration") from error
    logging.getLogger("tifffile").addHandler(SILENT)
    return tifffile


def _bytes(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder, not an image")
    data = path.read_bytes()
    if not data:
        raise ValueError(f"{path}: the file is empty")
    return data


def _decode(data: bytes) -> tuple[NDArray[Any], bytes | None]:
    """``[height, width, 1 to 4]`` uint8 or uint16, upright, and the ICC profile."""
    module = _pillow()
    try:
        image = module.open(BytesIO(data))
    except module.UnidentifiedImageError as error:
        if data[:4] in TIFF_SIGNATURES:
            return _deep_tiff(data), None
        raise ValueError("not an image of a known format") from error
    except module.DecompressionBombError as error:
        raise ValueError(f"too many pixels: {error}") from error
    _check_size(*image.size)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ValueError(f"holds {image.n_frames} frames; only still images are read")
    profile = image.info.get("icc_profile")
    if png16.is_deep(data):
        array, profile = png16.decode(data)
    elif image.format == "TIFF" and max(image.tag_v2.get(258, (1,))) > 8:
        array = _deep_tiff(data)
    else:
        array = np.asarray(_plain(image))
        array = array[..., None] if array.ndim == 2 else array
    return _upright(array, image.getexif().get(EXIF_ORIENTATION, 1)), profile


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"too many pixels: {width}x{height} are more than the {MAX_PIXELS} that are read")


def _plain(image: Image) -> Image:
    """Decoded, in mode L, LA, RGB or RGBA."""
    image.load()
    if image.mode in ("L", "LA", "RGB", "RGBA") and "transparency" not in image.info:
        return image
    if image.mode in ("F", "I", "LAB", "HSV") or image.mode.startswith("I;"):
        raise ValueError(f"holds values of kind {image.mode!r}, which have no range; only 8 and 16 bits are read")
    if image.mode in ("1", "L"):
        return image.convert("LA" if "transparency" in image.info else "L")
    seen_through = image.mode in ("PA", "La", "RGBa") or "transparency" in image.info
    return image.convert("RGBA" if seen_through else "RGB")


def _deep_tiff(data: bytes) -> NDArray[Any]:
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(BytesIO(data)) as file:
            page = file.pages[0]
            _check_size(page.imagewidth, page.imagelength)
            array, axes = page.asarray(), page.axes
            white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    except Exception as error:
        raise ValueError(f"the TIFF cannot be decoded: {error}") from error
    array = np.moveaxis(array, axes.index("S"), -1) if "S" in axes else array[..., None]
    if array.dtype != np.uint16 or array.ndim != 3 or array.shape[-1] > 4:
        raise ValueError(
            f"holds {array.dtype} of shape {array.shape}; TIFFs of 8 and 16 bits, 1 to 4 channels, are read"
        )
    return 65535 - array if white_is_zero else array


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo the EXIF orientation (Exif 3.0, tag 274)."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _encode(file: BinaryIO, array: NDArray[Any], suffix: str, profile: bytes | None, quality: int) -> None:
    if suffix in (".tif", ".tiff") and array.dtype == np.uint16:
        tifffile = _tifffile()
        channels = array.shape[-1]
        content = BytesIO()
        tifffile.imwrite(
            content,
            array[..., 0] if channels == 1 else array,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig=None if channels == 1 else "contig",
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            compression="zlib",
            iccprofile=profile,
            metadata=None,
        )
        file.write(content.getvalue())
    elif array.dtype == np.uint16:
        file.write(png16.encode(array, profile))
    else:
        options: dict[str, Any] = {
            ".png": {"format": "PNG"},
            ".webp": {"format": "WEBP", "lossless": True, "exact": True},
            ".bmp": {"format": "BMP"},
            ".tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
        }.get(suffix.replace(".tiff", ".tif"), {"format": "JPEG", "quality": quality, "subsampling": 0})
        if profile and suffix != ".bmp":
            options["icc_profile"] = profile
        image = _pillow().fromarray(array[..., 0] if array.shape[-1] == 1 else array)
        image.save(file, **options)
