"""Folders of slices and volumes for segmentation as the data sets lay them out; which part is for training.

* Synapse (TransUNet's preparation): ``train_npz/NAME.npz`` and ``test_vol_h5/NAME.npy.h5``, names in
  ``lists/lists_Synapse/train.txt`` and ``test_vol.txt``;
* LiTS as PNG: ``trainImage_lits2017_png`` with ``trainMask_lits2017_png`` and the same with ``test``, masks grey 0, 150
  (liver) and 255 (tumour);
* LiTS as NIfTI: ``CT/volume-N.nii`` with ``seg/segmentation-N.nii``;
* Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr`` and ``labelsTr``;
* pairs: ``images/NAME`` with ``labels/NAME``, of any format that can be read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fovea.data import scans
from fovea.errors import UserError

Kind = Literal["synapse", "lits-png", "lits-nifti", "msd", "pairs"]
LITS_CODES = (0, 150, 255)
LISTS = "lists/lists_Synapse"


@dataclass(frozen=True)
class Case:
    """One slice or volume: its image, its labels (the same file for archives), the labels' grey values if special."""

    name: str
    image: Path
    label: Path
    codes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cases:
    """What a folder holds.

    Attributes:
        kind: its layout.
        training, held_out: cases to learn from and to measure on.
        modality: of ``dataset.json``, in lower case; empty where nothing says it.
        names: of the classes, the background first; empty where nothing says them.
    """

    kind: Kind
    training: tuple[Case, ...]
    held_out: tuple[Case, ...]
    modality: str = ""
    names: tuple[str, ...] = ()


SYNAPSE = (
    "background",
    "aorta",
    "gallbladder",
    "left kidney",
    "right kidney",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)
LITS = ("background", "liver", "tumour")


def cases(folder: Path) -> Cases:
    """The cases of a folder, whichever of the layouts it has.

    Where the layout names no test part, the last fifth by name is held out (at least one case). LiTS' training slices
    are held out by a shuffle with seed 42 where there is no test folder, as the official code does.

    Raises:
        UserError: the folder is missing, has none of the layouts, a listed file is not there, or a partner is missing.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is a file; it must be a folder" if folder.exists() else f"there is no folder {folder}"
        )
    if (folder / "train_npz").is_dir() or (folder / "test_vol_h5").is_dir():
        return _synapse(folder)
    if any(folder.glob("trainImage*")) or any(folder.glob("testImage*")):
        return _lits_png(folder)
    if (folder / "CT").is_dir() and (folder / "seg").is_dir():
        return _lits_nifti(folder)
    if (folder / "dataset.json").is_file():
        return _decathlon(folder)
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        return Cases("pairs", *_last_fifth(_pairs(folder / "images", folder / "labels")))
    inside = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
    raise UserError(
        f"{folder} has no layout that is known (it holds {inside}); put images into images/ and labels of the same "
        "names into labels/, or use that of Synapse, LiTS or the Medical Segmentation Decathlon"
    )


def _synapse(folder: Path) -> Cases:
    training = _listed(folder, "train.txt", "train_npz", ".npz")
    held_out = _listed(folder, "test_vol.txt", "test_vol_h5", ".npy.h5")
    return Cases("synapse", training, held_out, "ct", SYNAPSE)


def _listed(folder: Path, list_name: str, inside: str, suffix: str) -> tuple[Case, ...]:
    """The files that a list names; an empty tuple where the whole part is left out."""
    if not (folder / inside).is_dir():
        return ()
    file = folder / LISTS / list_name
    if not file.is_file():
        file = next(iter(sorted(folder.glob(f"**/{list_name}"))), file)
    if not file.is_file():
        raise UserError(f"there is no list {file} of the files in {folder / inside}")
    names = [name.removesuffix(suffix) for name in file.read_text().split()]
    if not names:
        raise UserError(f"{file} names no file")
    found = tuple(Case(name, path, path) for name in names for path in [folder / inside / f"{name}{suffix}"])
    if missing := [case.image.name for case in found if not case.image.is_file()]:
        raise UserError(f"{file} names files that are not in {folder / inside}: {_first(missing)}")
    return found


def _lits_png(folder: Path) -> Cases:
    parts: dict[str, tuple[Case, ...]] = {}
    for part in ("train", "test"):
        images, masks = (next(iter(sorted(folder.glob(f"{part}{what}*"))), None) for what in ("Image", "Mask"))
        if images is not None and masks is None:
            raise UserError(f"{folder} has {images.name} and no folder {part}Mask... beside it")
        parts[part] = _pairs(images, masks, LITS_CODES) if images is not None and masks is not None else ()
    if parts["train"] and not parts["test"]:
        shuffled = list(parts["train"])
        random.Random(42).shuffle(shuffled)
        cut = len(shuffled) * 4 // 5
        parts = {"train": tuple(shuffled[:cut]), "test": tuple(shuffled[cut:])}
    return Cases("lits-png", parts["train"], parts["test"], "ct", LITS)


def _lits_nifti(folder: Path) -> Cases:
    found = {}
    for prefix, inside in (("volume-", "CT"), ("segmentation-", "seg")):
        files = [path for path in sorted((folder / inside).iterdir()) if scans.ending(path) in (".nii", ".nii.gz")]
        found[inside] = {scans.stem(path).removeprefix(prefix): path for path in files}
    numbers = sorted(found["CT"], key=lambda number: (len(number), number))
    if missing := [number for number in numbers if number not in found["seg"]]:
        raise UserError(f"{folder / 'seg'} has no segmentation of volume {_first(missing)}")
    made = tuple(Case(f"volume-{number}", found["CT"][number], found["seg"][number]) for number in numbers)
    return Cases("lits-nifti", *_last_fifth(made), "ct", LITS)


def _decathlon(folder: Path) -> Cases:
    file = folder / "dataset.json"
    try:
        described = json.loads(file.read_text())
        entries = [(folder / entry["image"], folder / entry["label"]) for entry in described["training"]]
        names = described.get("labels", {})
        modality = str(next(iter(described.get("modality", {"0": ""}).values()))).lower()
        classes = tuple(str(names[key]) for key in sorted(names, key=int))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(f"{file} is no description of a Decathlon data set: {error or type(error).__name__}") from error
    if missing := [str(path) for pair in entries for path in pair if not path.is_file()]:
        raise UserError(f"{file} names files that are not there: {_first(missing)}")
    made = tuple(Case(scans.stem(image), image, label) for image, label in sorted(entries))
    return Cases("msd", *_last_fifth(made), modality, classes)


def _pairs(images: Path, masks: Path, codes: tuple[int, ...] = ()) -> tuple[Case, ...]:
    named = {scans.stem(path): path for path in sorted(masks.iterdir()) if scans.ending(path)}
    files = [path for path in sorted(images.iterdir()) if scans.ending(path) and not path.name.startswith(".")]
    if not files:
        raise UserError(f"{images} holds no slice or volume ({', '.join(scans.ENDINGS)})")
    if missing := [path.name for path in files if scans.stem(path) not in named]:
        raise UserError(f"{masks} has no labels for {_first(missing)}")
    return tuple(Case(scans.stem(path), path, named[scans.stem(path)], codes) for path in files)


def _last_fifth(found: Sequence[Case]) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    if not found:
        raise UserError("the data set names no case")
    cut = len(found) - max(1, len(found) // 5) if len(found) > 1 else 0
    return tuple(found[:cut]), tuple(found[cut:])


def _first(names: Iterable[str], count: int = 5) -> str:
    named = list(names)
    return ", ".join(named[:count]) + (f" and {len(named) - count} more" if len(named) > count else "")
