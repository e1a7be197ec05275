"""Folders of image pairs as people keep them: BasicSR's, SwinIR's, or clean images alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fovea.data.images import SUFFIXES, list_images
from fovea.errors import UserError


@dataclass(frozen=True)
class Files:
    """One image of a set: the clean file and, where there is one, the degraded."""

    name: str
    high: Path
    low: Path | None


def pairs(folder: Path, scale: int) -> list[Files]:
    """The pairs of a set, by name.

    * BasicSR: ``GTmod<s>/baby.png`` with ``LRbicx<s>/baby.png``;
    * SwinIR: ``HR/baby.png`` with ``LR_bicubic/X<s>/babyx<s>.png``;
    * clean images alone, in ``HR``, ``GT`` or the folder itself.

    Raises ``UserError`` when the folder is missing, holds no images, or a clean image has no partner.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    layouts = (
        (folder / f"GTmod{scale}", folder / f"LRbicx{scale}"),
        (folder / "HR", folder / "LR_bicubic" / f"X{scale}"),
        (folder / "GT", folder / "LR"),
    )
    for high, low in layouts:
        if high.is_dir() and low.is_dir() and scale > 1:
            partners = {re.sub(rf"x{scale}$", "", path.stem): path for path in list_images(low)}
            found = [Files(path.stem, path, partners.get(path.stem)) for path in list_images(high)]
            if missing := [item.name for item in found if item.low is None]:
                raise UserError(f"{low} has no image for {', '.join(missing[:5])}")
            return found
    clean = next((path for path in (folder / "HR", folder / "GT", folder / f"GTmod{scale}") if path.is_dir()), folder)
    if not any(path.suffix.lower() in SUFFIXES for path in clean.iterdir()):
        raise UserError(f"{folder} holds no images, neither by itself nor in HR, GT, GTmod{scale} or LRbicx{scale}")
    return [Files(path.stem, path, None) for path in list_images(clean, nested=False)]
