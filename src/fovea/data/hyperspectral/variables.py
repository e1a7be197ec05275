"""The arrays in a file by name, shape and a way to read them: MATLAB 5 and 7.3, NumPy, ENVI and TIFF."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.data.hyperspectral import envi, tiff
from fovea.data.hyperspectral.georeference import Georeference
from fovea.errors import MissingExtra, UsageError, UserError, unknown

HDF5 = b"\x89HDF\r\n\x1a\n"
SUFFIXES = (".mat", ".npy", ".npz", ".hdr", *envi.DATA_SUFFIXES, *tiff.SUFFIXES)
"""Endings of the files that are read."""


@dataclass(frozen=True, eq=False)
class Variable:
    """One numeric array of a file, not yet read; what is read may be a memory map."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]
    place: Georeference | None = None

    @property
    def words(self) -> str:
        """``salinas [512 x 217 x 204]``."""
        return f"{self.name or 'array'} [{' x '.join(map(str, self.shape))}]"


def variables(path: Path) -> list[Variable]:
    """The numeric arrays in a file, in its order.

    Raises:
        UserError: the file is damaged or of a kind that is not read.
        FileNotFoundError: there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path} is no scene or label map; these files are read: {', '.join(SUFFIXES)}")
    try:
        if suffix == ".mat":
            return _matlab73(path) if _starts_hdf5(path) else _matlab5(path)
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return [_numpy_member(path, name, archive[name].shape) for name in archive.files]
        if suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return [Variable(path.stem, array.shape, lambda: array)]
        if suffix in tiff.SUFFIXES:
            return [_tiff(path)]
        return [_envi(path)]
    except (UserError, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails in whatever way its bytes ask for
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read; it is damaged or cut short ({first})") from error


def choose(
    path: Path, rank: int, key: str | None = None, *, like: Sequence[int] | None = None, what: str = "cube"
) -> Variable:
    """The array of a file that has ``rank`` axes (and the shape ``like``, where more than one has the rank).

    Of several that remain, one whose name ends in ``gt`` (label maps) or the largest (cubes) is taken.

    Args:
        key: its name, where the file has several and the user knows.

    Raises:
        UsageError: there is no array of that name, none of that rank, or nothing tells which of several is meant.
    """
    found = variables(path)
    if key is not None:
        named = [variable for variable in found if variable.name == key]
        if not named:
            raise unknown(f"array in {path.name}", key, [variable.name for variable in found])
        return named[0]
    fitting = [variable for variable in found if len(variable.shape) == rank]
    if not fitting:
        there = ", ".join(variable.words for variable in found) or "nothing"
        raise UsageError(f"{path}: a {what} has {rank} axes, and no array in it has; it holds {there}")
    if like is not None and (same := [variable for variable in fitting if variable.shape == tuple(like)]):
        fitting = same
    if len(fitting) > 1 and rank == 2:
        fitting = [variable for variable in fitting if variable.name.lower().endswith("gt")] or fitting
    if len(fitting) > 1 and rank == 3:
        largest = max(int(np.prod(variable.shape)) for variable in fitting)
        fitting = [variable for variable in fitting if int(np.prod(variable.shape)) == largest]
    if len(fitting) > 1:
        option = "data.label_key" if rank == 2 else "data.key"
        there = ", ".join(variable.words for variable in fitting)
        raise UsageError(f"{path}: more than one array may be the {what} ({there}); say which with {option}=NAME")
    return fitting[0]


def _starts_hdf5(path: Path) -> bool:
    """MATLAB 7.3 files are HDF5, mostly behind 512 bytes of their own."""
    with path.open("rb") as file:
        head = file.read(1024)
    return head.startswith(HDF5) or head[512:520] == HDF5


def _matlab5(path: Path) -> list[Variable]:
    try:
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        raise MissingExtra("hyperspectral scenes", "scipy", "spectral") from error

    def reader(name: str) -> Callable[[], NDArray[Any]]:
        def read() -> NDArray[Any]:
            try:
                return loadmat(path, variable_names=[name])[name]
            except Exception as error:
                raise UserError(f"{path} cannot be read; it is damaged or cut short ({error})") from error

        return read

    numeric = re.compile(r"double|single|u?int\d+|logical")
    return [Variable(name, shape, reader(name)) for name, shape, kind in whosmat(path) if numeric.fullmatch(kind)]


def _matlab73(path: Path) -> list[Variable]:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("MATLAB 7.3 files", "h5py", "spectral") from error

    def reader(name: str) -> Callable[[], NDArray[Any]]:
        def read() -> NDArray[Any]:
            with h5py.File(path, "r") as file:
                return file[name][()].transpose()  # type: ignore[index, union-attr]

        return read

    with h5py.File(path, "r") as file:
        arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        return [
            Variable(name, tuple(item.shape[::-1]), reader(name))
            for name, item in arrays.items()
            if item.dtype.kind in "fiub" or item.dtype.names == ("real", "imag")
        ]


def _numpy_member(path: Path, name: str, shape: tuple[int, ...]) -> Variable:
    def read() -> NDArray[Any]:
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]

    return Variable(name, shape, read)


def _tiff(path: Path) -> Variable:
    image = tiff.read(path)
    return Variable(path.stem, image.array.shape, lambda: image.array, image.place)


def _envi(path: Path) -> Variable:
    image = envi.read(path)
    array = image.array[..., 0] if image.array.shape[2] == 1 else image.array
    return Variable(path.stem, array.shape, lambda: array, image.place)
