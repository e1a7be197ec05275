"""Where on the Earth a raster lies, in the words of GeoTIFF, so that maps lie where their scene does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PIXEL_SCALE, TIEPOINT, TRANSFORMATION = 33550, 33922, 34264
KEYS, DOUBLES, ASCII = 34735, 34736, 34737
TAGS = (PIXEL_SCALE, TIEPOINT, TRANSFORMATION, KEYS, DOUBLES, ASCII)
_DOUBLE, _SHORT, _TEXT = 12, 3, 2
_KINDS = {KEYS: _SHORT, ASCII: _TEXT}


@dataclass(frozen=True)
class Georeference:
    """The tags of a GeoTIFF that place it (OGC GeoTIFF 1.1, section 7), by their numbers."""

    tags: Mapping[int, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tags)

    def extratags(self) -> list[tuple[int, int, int, Any, bool]]:
        """In the form that ``tifffile`` writes."""
        written = []
        for number, value in self.tags.items():
            text = isinstance(value, str)
            written.append((number, _KINDS.get(number, _DOUBLE), 0 if text else len(value), value, True))
        return written


def from_map_info(words: list[str]) -> Georeference | None:
    """ENVI's ``map info``: projection, reference pixel (from 1), its easting and northing, pixel sizes, zone, ...

    Universal Transverse Mercator on WGS 84 is named; of other projections only place and pixel size are kept.
    """
    try:
        column, row, east, north, width, height = (float(word) for word in words[1:7])
    except ValueError:
        return None
    tags: dict[int, Any] = {
        PIXEL_SCALE: (width, height, 0.0),
        TIEPOINT: (column - 1, row - 1, 0.0, east, north, 0.0),
    }
    rest = [word.lower() for word in words[7:]]
    if words[0].upper() == "UTM" and len(rest) >= 2 and rest[0].isdigit() and "wgs-84" in rest:
        code = (32700 if rest[1].startswith("s") else 32600) + int(rest[0])
        # version 1.1.0 and three keys: a projected system, pixels as areas, the system's EPSG code
        tags[KEYS] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, code)
    return Georeference(tags)
