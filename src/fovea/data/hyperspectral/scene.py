"""A hyperspectral scene: its cube, what is known about its pixels, and where it lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.data.hyperspectral.georeference import Georeference
from fovea.data.hyperspectral.variables import SUFFIXES, Variable, choose, variables
from fovea.errors import UsageError, UserError

Cube = NDArray[Any]
Labels = NDArray[np.int64]
ROWS = 64
"""Rows that are looked at together where the whole cube might not fit into memory."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene.

    Attributes:
        name: for reports.
        cube: ``[rows, columns, bands]``, real numbers of any type; may be a memory map.
        labels: ``[rows, columns]``, 0 for unlabelled and 1 to C for the classes; none where nothing is known.
        classes: names of the C classes.
        numbers: what the C classes are called in the file they come from.
        place: where it lies.
    """

    name: str
    cube: Cube
    labels: Labels | None = None
    classes: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    place: Georeference | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.cube.shape[0], self.cube.shape[1]

    def pixels(self, index: NDArray[np.integer]) -> NDArray[np.float32]:
        """Spectra of the pixels at these places of the flattened scene: ``[pixels, bands]``."""
        rows, columns = np.unravel_index(index, self.size)
        return np.asarray(self.cube[rows, columns], dtype=np.float32)

    def strips(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """The cube from top to bottom, some rows at a time."""
        for top in range(0, self.size[0], ROWS):
            rows = slice(top, min(top + ROWS, self.size[0]))
            yield rows, np.asarray(self.cube[rows], dtype=np.float32)


def read_scene(path: Path, key: str | None = None) -> Scene:
    """The cube of a file, without labels.

    Raises:
        UserError: there is no cube, or it holds what is no spectrum: complex numbers, NaN, infinity.
    """
    found = choose(path, 3, key)
    return Scene(path.stem, checked(found, path), place=found.place)


def checked(found: Variable, path: Path) -> Cube:
    """The array of a variable, refused unless it is a cube of finite real numbers."""
    cube = found.read()
    if cube.ndim != 3 or 0 in cube.shape:
        raise UserError(f"{path}: {found.words} is no cube; it must have rows, columns and bands")
    if cube.dtype.kind == "c" or cube.dtype.names == ("real", "imag"):
        raise UserError(f"{path}: {found.words} holds complex numbers; spectra are real (take the magnitude first)")
    if cube.dtype.kind not in "fiu":
        raise UserError(f"{path}: {found.words} holds {cube.dtype}; spectra are whole or floating-point numbers")
    if cube.dtype.kind == "f":
        for top in range(0, len(cube), ROWS):
            if (bad := ~np.isfinite(cube[top : top + ROWS]).all(-1)).any():
                row, column = np.argwhere(bad)[0]
                raise UserError(
                    f"{path}: {found.words} holds NaN or infinity, first at row {top + row}, column {column}; "
                    "fill or cut such pixels before"
                )
    return cube


def with_labels(scene: Scene, path: Path, key: str | None = None, names: tuple[str, ...] = ()) -> Scene:
    """The scene with the label map of a file: whole numbers, 0 for unlabelled.

    An array with three axes, if named by ``key``, is read as abundances: the largest of each pixel is its class.

    Raises:
        UserError: there is no label map, it has another size, or it holds what are no labels.
    """
    found = choose(path, 2, key, like=scene.size, what="label map")
    values = found.read()
    if values.ndim == 3 and key is not None and values.shape[:2] == scene.size:
        if not np.isfinite(values).all():
            raise UserError(f"{path}: {found.words} holds abundances that are not finite")
        values = values.argmax(-1) + 1
    if values.shape != scene.size:
        raise UserError(
            f"{path}: the label map {found.words} does not fit the scene, which has {scene.size[0]} x {scene.size[1]} "
            "pixels"
        )
    if values.dtype.kind not in "fiub" or (values.dtype.kind == "f" and not np.array_equal(values, np.round(values))):
        raise UserError(f"{path}: {found.words} holds {values.dtype} that are no whole numbers; labels are")
    if values.min() < 0:
        raise UserError(f"{path}: {found.words} holds {values.min()}; labels are 0 (unlabelled) and above")
    numbers = np.unique(values[values > 0]).astype(np.int64)
    if len(numbers) < 2:
        raise UserError(f"{path}: {found.words} has {len(numbers)} classes; at least 2 are needed")
    if names and len(names) != len(numbers):
        raise UsageError(f"data.classes has {len(names)} names; {path} has {len(numbers)} classes")
    labels = np.searchsorted(numbers, values.astype(np.int64)) + 1
    labels = np.where(values > 0, labels, 0)
    classes = names or tuple(f"class {number}" for number in numbers)
    return replace(scene, labels=labels, classes=classes, numbers=tuple(map(int, numbers)))


def read_pair(path: Path, key: str | None = None, label_key: str | None = None, names: tuple[str, ...] = ()) -> Scene:
    """A scene with its labels: a folder that holds both (``X.mat`` and ``X_gt.mat``), the cube's file with the label
    map beside it, or one file with both.

    Raises:
        UserError: what is needed is not there or does not fit.
    """
    cube, labels = _pair(path, key)
    return with_labels(read_scene(cube, key), labels, label_key, names)


def _pair(path: Path, key: str | None) -> tuple[Path, Path]:
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES and not _is_raw(file)]
        maps = [file for file in files if _names_labels(file)]
        cubes = [file for file in files if file not in maps]
        if len(cubes) > 1:
            cubes = [file for file in cubes if any(_belongs(label, file) for label in maps)] or cubes
        if not files or len(cubes) > 1 or not (cubes or maps):
            seen = ", ".join(file.name for file in files) or "no such file"
            raise UsageError(
                f"{path} must hold one scene and its label map, named like Scene.mat and Scene_gt.mat; it has {seen}"
            )
        path = cubes[0] if cubes else maps[0]
    beside = sorted(file for file in path.parent.iterdir() if file.suffix.lower() in SUFFIXES and _belongs(file, path))
    if beside:
        return path, next((file for file in beside if not _is_raw(file)), beside[0])
    if any(len(variable.shape) == 2 for variable in variables(path)):
        return path, path
    raise UserError(f"{path} has no label map: put {path.stem}_gt{path.suffix} beside it")


def _names_labels(file: Path) -> bool:
    return file.stem.lower().endswith(("_gt", "-gt", "_labels", "_groundtruth"))


def _belongs(labels: Path, cube: Path) -> bool:
    """Whether ``labels`` is called like the label map of ``cube``; corrected scenes share that of the raw one."""
    stem = labels.stem.lower()
    for ending in ("_gt", "-gt", "_labels", "_groundtruth"):
        if stem.endswith(ending):
            return cube.stem.lower() in (stem.removesuffix(ending), stem.removesuffix(ending) + "_corrected")
    return False


def _is_raw(file: Path) -> bool:
    """Whether the file is the raw half of an ENVI pair, which its header stands for."""
    if file.suffix.lower() in (".hdr", ".mat", ".npy", ".npz", ".tif", ".tiff"):
        return False
    return file.with_suffix(".hdr").is_file() or file.with_name(file.name + ".hdr").is_file()
