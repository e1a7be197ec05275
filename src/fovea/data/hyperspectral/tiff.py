"""TIFF and GeoTIFF: stacks of bands in, maps of classes out, with the tags that place them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.data.hyperspectral.georeference import TAGS, Georeference
from fovea.errors import MissingExtra, UserError

SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class Raster:
    """``[rows, columns]`` or ``[rows, columns, bands]``, and where it lies."""

    array: NDArray[Any]
    place: Georeference | None


def read(path: Path) -> Raster:
    """The first image of a TIFF: bands as samples of a pixel, as planes, or as pages of equal size.

    Uncompressed files are mapped into memory, others read whole.

    Raises:
        UserError: it has more axes than rows, columns and bands.
    """
    tifffile = _library()
    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.pages[0]
        place = Georeference({number: page.tags[number].value for number in TAGS if number in page.tags})
        axes = series.axes
        wide = [axis for axis, size in zip(axes, series.shape, strict=True) if size > 1 or axis in "YX"]
        if len(wide) > 3 or "Y" not in wide or "X" not in wide:
            raise UserError(f"{path} has the axes {axes} {series.shape}; a scene has rows, columns and bands")
        array = tifffile.memmap(path, mode="r") if series.dataoffset is not None else series.asarray()
    array = array.reshape([size for axis, size in zip(axes, series.shape, strict=True) if axis in wide])
    order = [wide.index("Y"), wide.index("X"), *(place for place, axis in enumerate(wide) if axis not in "YX")]
    return Raster(array.transpose(order), place or None)


def write(
    path: Path,
    array: NDArray[np.integer],
    place: Georeference | None,
    description: str,
    *,
    colours: NDArray[np.uint8] | None = None,
) -> None:
    """A map ``[rows, columns]`` of whole numbers, placed as ``place`` says.

    Args:
        colours: ``[256, 3]``, with which programs show the numbers 0 to 255.
    """
    shown: dict[str, Any] = {"photometric": "minisblack"}
    if colours is not None:
        shown = {"photometric": "palette", "colormap": colours.T.astype(np.uint16) * 257}
    _library().imwrite(
        path,
        array.astype(np.uint8 if colours is not None else np.uint16),
        compression="zlib",
        description=description,
        metadata=None,
        extratags=place.extratags() if place else (),
        **shown,
    )


def _library() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtra("TIFF", "tifffile", "spectral") from error
    return tifffile
