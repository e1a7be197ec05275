"""Folders of image pairs as people keep them: BasicSR's, SwinIR's, DIV2K's, or clean images alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fovea.data.images import list_images
from fovea.errors import UserError


@dataclass(frozen=True)
class Files:
    """One image of a set: the clean file and, where there is one, the degraded."""

    name: str
    high: Path
    low: Path | None


def pairs(folder: Path, scale: int) -> list[Files]:
    """The images of a set, or of all sets that a folder holds, sorted; folders inside are looked through.

    * BasicSR: ``GTmod<s>/baby.png`` with ``LRbicx<s>/baby.png``;
    * SwinIR: ``HR/baby.png`` with ``LR_bicubic/X<s>/babyx<s>.png``;
    * DIV2K: ``DIV2K_train_HR/0001.png`` with ``DIV2K_train_LR_bicubic/X<s>/0001x<s>.png``;
    * ``GT/baby.png`` with ``LR/baby.png``;
    * clean images alone, in ``HR``, ``GT``, ``GTmod<s>``, ``..._HR`` or the folder itself.

    Args:
        scale: clean images have ``scale`` times the size; where it is 1 there are clean images alone.

    Returns:
        Names are paths inside the clean folder without the ending (``baby``), after the set's name where the folder
        holds several (``Set5/baby``).

    Raises:
        UserError: the folder is missing or holds no images, an image has no partner, or two have one name.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is a file; it must be a folder" if folder.exists() else f"there is no folder {folder}"
        )
    if layout := _layout(folder, scale):
        return _matched(*layout, scale)
    sets = [
        (child, layout) for child in sorted(folder.iterdir()) if child.is_dir() and (layout := _layout(child, scale))
    ]
    if sets:
        return [
            replace(files, name=f"{child.name}/{files.name}")
            for child, layout in sets
            for files in _matched(*layout, scale)
        ]
    if others := sorted(path.name for path in folder.iterdir() if path.name.startswith(("GTmod", "LRbic", "LR_"))):
        raise UserError(f"{folder} has no images for scale {scale}; it holds {', '.join(others)}")
    return _matched(folder, None, scale)


def _layout(folder: Path, scale: int) -> tuple[Path, Path | None] | None:
    """The clean and the degraded folder of a set, the latter if there is one; None where this is no set."""
    known = [
        (folder / f"GTmod{scale}", folder / f"LRbicx{scale}"),
        (folder / "HR", folder / "LR_bicubic" / f"X{scale}"),
        (folder / "GT", folder / "LR"),
    ]
    div2k = sorted(folder.glob("*_HR"))
    if len(div2k) > 1:
        names = ", ".join(path.name for path in div2k)
        raise UserError(f"{folder} holds several sets, {names}; put the one to use into a folder of its own")
    known += [(high, high.with_name(f"{high.name[:-3]}_LR_bicubic") / f"X{scale}") for high in div2k]
    if scale > 1:
        for high, low in known:
            if high.is_dir() and low.is_dir():
                return high, low
    return next(((high, None) for high, _ in known if high.is_dir()), None)


def _matched(clean: Path, degraded: Path | None, scale: int) -> list[Files]:
    high = _by_name(clean, _listed(clean), "")
    if degraded is None:
        return [Files(name, path, None) for name, path in high.items()]
    low = _by_name(degraded, _listed(degraded), "")
    if low.keys() != high.keys():
        low = _by_name(degraded, low.values(), f"x{scale}")
    if missing := [name for name in high if name not in low]:
        raise UserError(f"{degraded} has no image for {_first(missing)}")
    if strangers := [name for name in low if name not in high]:
        raise UserError(f"{clean} has no image for {_first(strangers)}")
    return [Files(name, path, low[name]) for name, path in high.items()]


def _listed(folder: Path) -> list[Path]:
    try:
        return list_images(folder)
    except ValueError as error:
        raise UserError(str(error)) from error


def _by_name(folder: Path, paths: Iterable[Path], ending: str) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        name = name.removesuffix(ending)
        if name in named:
            raise UserError(f"{named[name]} and {path} have the same name; keep one of them")
        named[name] = path
    return named


def _first(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
