"""Volumes of several modalities as they lie on disk: read and checked, and label maps written back beside them.

Layouts:

* a folder of BraTS cases, ``NAME/NAME_{flair,t1,t1ce,t2,seg}.nii.gz``, or one such case;
* a JSON file of folds, ``{"training": [{"fold": 0, "image": [four paths], "label": path}, ...]}``, whose order of
  modalities is the order of the list;
* the Medical Segmentation Decathlon: a folder with ``dataset.json``, one file (of 3 or 4 axes) a case.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.errors import MissingExtra, UserError

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]

MODALITIES = ("flair", "t1ce", "t1", "t2")
"""Of BraTS, in the order of MONAI's list of folds and of the published checkpoints."""
ENDINGS = (".nii.gz", ".nii")
AFFINE_TOLERANCE = 1e-3
"""Millimetres by which the affines of one case's files may differ."""


@dataclass(frozen=True)
class Case:
    """One subject: a file for each modality (or one file with all of them), and the file of the labels, if any."""

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    fold: int | None = None


@dataclass(frozen=True)
class Volume:
    """A case in memory: ``image [modalities, *size]``, ``labels [*size]`` with the file's own codes, and its place."""

    name: str
    image: Floats
    labels: Labels | None
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres from voxel to voxel on each axis."""
        return tuple(float(x) for x in np.sqrt(np.square(self.affine[:3, :3]).sum(0)))


def brats_case(folder: Path, modalities: Sequence[str] = MODALITIES) -> Case:
    """The case in a BraTS folder.

    Raises:
        UserError: a modality is missing, or there are two files of one.
    """
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(ENDINGS))
    found: dict[str, Path] = {}
    for path in files:
        kind = path.name.lower().split(".nii")[0].rpartition("_")[2]
        if kind in found:
            raise UserError(f"{folder} has two files of {kind}: {found[kind].name} and {path.name}")
        found[kind] = path
    if missing := [name for name in modalities if name not in found]:
        there = ", ".join(path.name for path in files) or "no NIfTI file"
        raise UserError(f"{folder}: modality {', '.join(missing)} is missing; it has {there}")
    return Case(folder.name, tuple(found[name] for name in modalities), found.get("seg"))


def cases(path: Path, modalities: Sequence[str] = MODALITIES) -> tuple[list[Case], dict[int, str]]:
    """All cases of a folder or of a JSON file, in their order, and the classes' names where the data say them.

    Raises:
        UserError: the layout is none of those that are known, or files are missing.
    """
    if path.is_file():
        return _folds(path), {}
    if (path / "dataset.json").is_file():
        return _decathlon(path)
    folders = [path, *sorted(folder for folder in path.rglob("*") if folder.is_dir())]
    inside = [folder for folder in folders if any(folder.glob("*_*.nii*"))]
    if not inside:
        raise UserError(
            f"{path} holds no cases; it must be a folder of BraTS cases (NAME/NAME_flair.nii.gz, ...), a folder with "
            "dataset.json, or a JSON file of folds"
        )
    return [brats_case(folder, modalities) for folder in inside], {}


def read(case: Case, *, labels: bool = True) -> Volume:
    """A case in memory, checked.

    Raises:
        UserError: a file is missing, cut short or no volume; modalities or labels differ in shape or affine; voxels are
            not finite; labels are no whole numbers from 0 to 255.
        MissingExtra: nibabel is not installed.
    """
    arrays, affines = zip(*(_load(path) for path in case.images), strict=True)
    images = [_channels(path, array) for path, array in zip(case.images, arrays, strict=True)]
    first = case.images[0]
    for path, image, affine in zip(case.images[1:], images[1:], affines[1:], strict=True):
        _same_place(first, images[0].shape[1:], affines[0], path, image.shape[1:], affine)
    for path, image in zip(case.images, images, strict=True):
        if bad := int(image.size - np.isfinite(image).sum()):
            raise UserError(f"{path}: {bad} of {image.size} voxels are NaN or infinite")
    found = None
    if labels and case.label is not None:
        array, affine = _load(case.label)
        array = array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
        _same_place(first, images[0].shape[1:], affines[0], case.label, array.shape, affine)
        found = _codes(case.label, array)
    return Volume(case.name, np.concatenate(images), found, affines[0])


def save(target: Path, labels: Labels, like: Path) -> Path:
    """Write a label map ``[*size]`` with the affine and header of ``like``, whole or not at all.

    Raises:
        UserError: ``target`` does not end in .nii or .nii.gz, or cannot be written.
    """
    from fovea.data.images import replacing

    if not target.name.lower().endswith(ENDINGS):
        raise UserError(f"output {target}: it must end in .nii.gz or .nii")
    nibabel = _nibabel()
    source = nibabel.load(like)
    header = source.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_max"] = header["cal_min"] = 0
    content = nibabel.Nifti1Image(labels.astype(np.uint8), source.affine, header).to_bytes()
    if target.name.lower().endswith(".gz"):
        content = gzip.compress(content, 6, mtime=0)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        file.write(content)
    return target


def _folds(path: Path) -> list[Case]:
    entries = _json(path, "training")
    found = []
    for number, entry in enumerate(entries):
        try:
            images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
            files = tuple(_beside(path, name) for name in images)
            label = _beside(path, entry["label"]) if "label" in entry else None
            fold = int(entry["fold"]) if "fold" in entry else None
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: entry {number} of training has no proper {error}") from error
        found.append(Case(Path(images[0]).parent.name or Path(images[0]).name, files, label, fold))
    if not found:
        raise UserError(f"{path} lists no case under training")
    if len({len(case.images) for case in found}) > 1:
        raise UserError(f"{path}: cases have different numbers of modalities")
    return found


def _decathlon(folder: Path) -> tuple[list[Case], dict[int, str]]:
    file = folder / "dataset.json"
    found = []
    for entry in _json(file, "training"):
        if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
            raise UserError(f"{file}: an entry of training has no image and label, it is {entry!r}")
        image, label = _beside(file, entry["image"]), _beside(file, entry["label"])
        found.append(Case(image.name.split(".nii")[0], (image,), label))
    if not found:
        raise UserError(f"{file} lists no case under training")
    names = json.loads(file.read_text()).get("labels", {})
    return sorted(found, key=lambda case: case.name), {int(code): str(name) for code, name in names.items()}


def _json(path: Path, key: str) -> list[Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{path} has no list {key!r} of cases")
    return entries


def _beside(path: Path, name: str) -> Path:
    """A path that a JSON file names, from the file's own folder."""
    found = path.parent / name
    if not found.is_file():
        raise UserError(f"{path} names {name}, and there is no file {found}")
    return found


def _load(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    with _telling(path):
        image = _nibabel().load(path)
        return np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64)


def _channels(path: Path, array: NDArray[Any]) -> Floats:
    """``[modalities, *size]`` from a file of 3 axes, or of 4 with the modalities last."""
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise UserError(f"{path} holds {' x '.join(map(str, array.shape))} values; it must hold one volume")
    if np.iscomplexobj(array) or not np.issubdtype(array.dtype, np.number):
        raise UserError(f"{path} holds {array.dtype} values; an image holds numbers, one a voxel")
    return np.moveaxis(array, 3, 0).astype(np.float32) if array.ndim == 4 else array[None].astype(np.float32)


def _codes(path: Path, array: NDArray[Any]) -> Labels:
    found = np.unique(array)
    if not np.isfinite(found.astype(np.float64)).all() or (found != np.round(found)).any():
        raise UserError(f"{path}: labels must be whole numbers; it holds {', '.join(f'{v:g}' for v in found[:5])}")
    if found[0] < 0 or found[-1] > 255:
        raise UserError(f"{path}: label {found[0] if found[0] < 0 else found[-1]:g} is out of range, 0 to 255")
    return array.astype(np.uint8)


def _same_place(
    first: Path,
    shape: tuple[int, ...],
    affine: NDArray[Any],
    path: Path,
    its: tuple[int, ...],
    its_affine: NDArray[Any],
) -> None:
    if shape != its:
        found, wanted = (" x ".join(map(str, size)) for size in (its, shape))
        raise UserError(f"{path} is {found} voxels and {first} {wanted}; they must be the same")
    if not np.allclose(affine, its_affine, rtol=0, atol=AFFINE_TOLERANCE):
        far = float(np.abs(affine - its_affine).max())
        raise UserError(f"the affines of {path} and {first} differ by {far:g}; they must lie at the same place")


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Errors of nibabel as one line with the file's name."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        known = isinstance(error, EOFError | OSError | zlib.error | ValueError)
        if not known and type(error).__name__ not in ("ImageFileError", "HeaderDataError"):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read, it is damaged or cut short: {reason}") from error


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra("reading NIfTI", "nibabel", "segmentation") from error
    return nibabel
