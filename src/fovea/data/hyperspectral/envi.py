"""ENVI rasters: a text header ``.hdr`` beside a raw file, of any interleave, data type and byte order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.data.hyperspectral.georeference import Georeference, from_map_info
from fovea.errors import UserError

DATA_SUFFIXES = (".raw", ".img", ".dat", ".bsq", ".bil", ".bip", ".bin")
TYPES = {
    1: "u1",
    2: "i2",
    3: "i4",
    4: "f4",
    5: "f8",
    6: "c8",
    9: "c16",
    12: "u2",
    13: "u4",
    14: "i8",
    15: "u8",
}
"""ENVI's data types as NumPy's."""
ORDERS = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}
"""Which of rows, columns and bands (0, 1, 2) each axis of the raw file is."""


@dataclass(frozen=True, eq=False)
class Raster:
    """``array`` is a memory map, seen as ``[rows, columns, bands]``; ``header`` holds the words of the header."""

    array: NDArray[Any]
    header: Mapping[str, str]
    place: Georeference | None


def header_of(path: Path) -> dict[str, str]:
    """The fields of a header, names in lower case, lists in braces as their text.

    Raises:
        UserError: it is no ENVI header.
    """
    text = path.read_text(encoding="latin-1")
    if not text.lstrip().startswith("ENVI"):
        raise UserError(f"{path} is no ENVI header: it does not begin with the word ENVI")
    fields = re.findall(r"^[ \t]*([^=\n;]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n]*)", text, flags=re.MULTILINE)
    return {name.lower(): value.strip().strip("{}").strip() for name, value in fields}


def read(path: Path) -> Raster:
    """The raster of a header, or of the raw file that has one beside it.

    Raises:
        UserError: header or data are missing, contradict each other, or are of a kind that ENVI does not define.
    """
    header_path, data_path = _both(path)
    header = header_of(header_path)
    rows, columns, bands = (_number(header, name, header_path) for name in ("lines", "samples", "bands"))
    offset = _number(header, "header offset", header_path, 0)
    kind = _number(header, "data type", header_path)
    interleave = header.get("interleave", "bsq").lower()
    if kind not in TYPES or interleave not in ORDERS:
        raise UserError(
            f"{header_path}: data type = {kind}, interleave = {interleave}; there are {', '.join(map(str, TYPES))} "
            f"and {', '.join(ORDERS)}"
        )
    order = _number(header, "byte order", header_path, 0)
    if order not in (0, 1):
        raise UserError(f"{header_path}: byte order = {order}; it must be 0 (least significant first) or 1")
    dtype = np.dtype((">" if order else "<") + TYPES[kind])
    needed, there = offset + rows * columns * bands * dtype.itemsize, data_path.stat().st_size
    if there < needed:
        raise UserError(f"{data_path} is cut short: {there} bytes; {header_path.name} promises {needed}")
    axes = ORDERS[interleave]
    sizes = (rows, columns, bands)
    raw = np.memmap(data_path, dtype, "r", offset, tuple(sizes[axis] for axis in axes))
    place = from_map_info([word.strip() for word in header["map info"].split(",")]) if "map info" in header else None
    return Raster(raw.transpose(np.argsort(axes)), header, place)


def _both(path: Path) -> tuple[Path, Path]:
    """Header and raw file, given either: ``scene.hdr`` and ``scene``, ``scene.img``..., or ``scene.img.hdr``."""
    if path.suffix.lower() != ".hdr":
        for header in (path.with_suffix(".hdr"), path.with_name(path.name + ".hdr")):
            if header.is_file():
                return header, path
        raise UserError(f"{path} needs its header beside it: {path.with_suffix('.hdr').name}")
    stem = path.with_suffix("")
    candidates = [stem, *(stem.with_name(stem.name + suffix) for suffix in DATA_SUFFIXES)]
    candidates += [stem.with_name(stem.name + suffix.upper()) for suffix in DATA_SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            return path, candidate
    raise UserError(f"{path} has no data beside it: there is no {', '.join(found.name for found in candidates[:8])}")


def _number(header: Mapping[str, str], name: str, path: Path, default: int | None = None) -> int:
    text = header.get(name, None if default is None else str(default))
    if text is None or not text.isdigit():
        raise UserError(f"{path}: {name} = {text or 'missing'}; it must be a whole number")
    return int(text)
