"""Slices and volumes from the files that segmentation data sets are kept in, and label maps back into them.

NIfTI (``.nii``, ``.nii.gz``), NumPy archives (``.npz`` with ``image`` and ``label``), HDF5 (``.h5``, the same names)
and PNG. Everything is a stack of slices ``[slices, height, width]`` here; a single slice is a stack of one.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fovea.data.images import replacing
from fovea.errors import MissingExtra, UserError

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
Role = Literal["image", "label"]

ENDINGS = (".nii.gz", ".nii", ".npz", ".npy.h5", ".h5", ".png")
DAMAGED = (EOFError, OSError, zlib.error, zipfile.BadZipFile, ValueError, KeyError)
"""What reading a file that is cut short raises, depending on the format and on where it is cut."""
PALETTE = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Colours of classes, told apart by everybody (Okabe and Ito); after the last comes the first behind the background."""


def ending(path: Path) -> str | None:
    """The file's ending among those that can be read, or none."""
    return next((known for known in ENDINGS if path.name.lower().endswith(known)), None)


def stem(path: Path) -> str:
    """The file's name without the ending."""
    return path.name[: -len(ending(path) or path.suffix) or None]


def image(path: Path, *, axis: int = 2) -> Floats:
    """The image of a file, ``[slices, height, width]``; PNG bytes become [0, 1], all else keeps its unit.

    Args:
        axis: of a volume in NIfTI, along which it is cut; the others keep their order. HDF5 and archives hold slices
            first.

    Raises:
        UserError: the file is missing, damaged or cut short, holds no slice or volume, or values that are not finite.
        MissingExtra: the package that reads this format is not installed.
    """
    stack = _stack(path, _read(path, "image"), axis)
    if np.iscomplexobj(stack) or not np.issubdtype(stack.dtype, np.number):
        raise UserError(f"{path} holds {stack.dtype} values; an image holds numbers, one a voxel")
    if ending(path) == ".png":
        return (stack / np.float32(65535 if stack.dtype == np.uint16 else 255)).astype(np.float32)
    stack = stack.astype(np.float32)
    if bad := int(stack.size - np.isfinite(stack).sum()):
        raise UserError(f"{path}: {bad} of {stack.size} voxels are NaN or infinite")
    return stack


def labels(path: Path, classes: int, *, axis: int = 2, codes: Sequence[int] = ()) -> Labels:
    """The class of every voxel, ``[slices, height, width]``, 0 to ``classes - 1``; 255 stays, it means "not known".

    Args:
        codes: the grey value of each class in the file, where these are not the classes' numbers.

    Raises:
        UserError: as ``image`` does, and for values that are no class.
    """
    stack = _stack(path, _read(path, "label"), axis)
    found = np.unique(stack)
    if not np.isfinite(found.astype(np.float64)).all() or (found != np.round(found)).any():
        raise UserError(f"{path}: labels must be whole numbers, it holds {_some(found)}")
    allowed = tuple(codes) or (*range(classes), 255)
    if strange := [int(value) for value in found if int(value) not in allowed]:
        known = f"one of {', '.join(map(str, codes))}" if codes else f"0 to {classes - 1} (255: not known)"
        raise UserError(f"{path}: label {_some(strange)} is out of range; it must be {known}")
    if not codes:
        return stack.astype(np.uint8)
    classed = np.zeros(stack.shape, np.uint8)
    for number, code in enumerate(codes):
        classed[stack == code] = number
    return classed


def depth(path: Path, *, axis: int = 2) -> int:
    """How many slices a file holds, told from its header where it has one."""
    with _telling(path):
        if ending(path) in (".nii", ".nii.gz"):
            shape = _nibabel().load(path).shape
            return int(shape[axis]) if len(shape) >= 3 else 1
        if ending(path) in (".npy.h5", ".h5"):
            with _h5py().File(path, "r") as file:
                shape = file["image"].shape
            return int(shape[0]) if len(shape) == 3 else 1
    return 1 if ending(path) == ".png" else len(image(path, axis=axis))


def save(target: Path, classes: Labels, like: Path, *, axis: int = 2) -> Path:
    """Write a label map ``[slices, height, width]`` where ``target`` says, whole or not at all.

    NIfTI keeps affine and header of ``like``, where that is one; archives and HDF5 hold ``label``; PNG, of one slice
    only, holds the classes' numbers and a palette to see them by.

    Raises:
        UserError: the ending is unknown, or the format cannot hold this.
    """
    kind = ending(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind is None:
        raise UserError(f"output {target}: it must end in {', '.join(ENDINGS)}")
    flat = len(classes) == 1 and ending(like) not in (".nii", ".nii.gz")
    stack = classes[0] if flat else classes
    if kind == ".png":
        content = _png(target, classes)
    elif kind in (".nii", ".nii.gz"):
        content = _nifti(classes, like, axis)
        content = gzip.compress(content, 6, mtime=0) if kind == ".nii.gz" else content
    else:
        buffer = io.BytesIO()
        if kind == ".npz":
            np.savez_compressed(buffer, label=stack)
        else:
            with _h5py().File(buffer, "w") as file:
                file.create_dataset("label", data=stack, compression="gzip")
        content = buffer.getvalue()
    with replacing(target) as file:
        file.write(content)
    return target


def _read(path: Path, role: Role) -> NDArray[Any]:
    kind = ending(path)
    if kind is None:
        raise UserError(f"{path}: it must end in {', '.join(ENDINGS)}")
    with _telling(path):
        if kind in (".nii", ".nii.gz"):
            return np.asanyarray(_nibabel().load(path).dataobj)
        if kind == ".png":
            return _grey(path)
        if kind == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return _named(path, archive, role)
        with _h5py().File(path, "r") as file:
            return _named(path, file, role)


def _named(path: Path, archive: Any, role: Role) -> NDArray[Any]:
    if role not in archive:
        raise UserError(f"{path} has no {role!r}; it holds {', '.join(archive) or 'nothing'}")
    return np.asarray(archive[role])


def _stack(path: Path, array: NDArray[Any], axis: int) -> NDArray[Any]:
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape:
        size = " x ".join(map(str, array.shape)) or "no"
        raise UserError(f"{path} holds {size} values; it must hold one slice or one volume")
    if array.ndim == 2:
        return array[None]
    return np.moveaxis(array, axis, 0) if ending(path) in (".nii", ".nii.gz") else array


def _grey(path: Path) -> NDArray[Any]:
    from PIL import Image

    with Image.open(path) as file:
        if file.mode in ("P", "1", "L") or file.mode.startswith("I"):
            pixels = np.array(file.convert("L") if file.mode == "1" else file)
        else:
            pixels = np.array(file.convert("RGB"))
            if (pixels != pixels[..., :1]).any():
                raise UserError(f"{path} is in colour; slices are grey")
            pixels = pixels[..., 0]
    return pixels.astype(np.uint16) if pixels.dtype.itemsize > 1 else pixels


def _png(target: Path, classes: Labels) -> bytes:
    from PIL import Image

    if len(classes) != 1:
        raise UserError(f"output {target}: a PNG holds one slice, these are {len(classes)}; write .nii.gz or .npz")
    picture = Image.fromarray(classes[0])
    colours = [PALETTE[0], *(PALETTE[1 + number % (len(PALETTE) - 1)] for number in range(255))]
    picture.putpalette([value for colour in colours for value in colour])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _nifti(classes: Labels, like: Path, axis: int) -> bytes:
    nibabel = _nibabel()
    if ending(like) not in (".nii", ".nii.gz"):
        return nibabel.Nifti1Image(np.moveaxis(classes, 0, axis), np.eye(4)).to_bytes()
    source = nibabel.load(like)
    volume = np.moveaxis(classes, 0, axis) if len(source.shape) >= 3 else classes[0]
    header = source.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_max"] = header["cal_min"] = 0
    return nibabel.Nifti1Image(volume.reshape(source.shape), source.affine, header).to_bytes()


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Errors of the readers, as one line with the file's name."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, DAMAGED) and type(error).__name__ not in ("ImageFileError", "HeaderDataError"):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read, it is damaged or cut short: {reason}") from error


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra("reading NIfTI", "nibabel", "segmentation") from error
    return nibabel


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("reading HDF5", "h5py", "segmentation") from error
    return h5py


def _some(values: Any, count: int = 5) -> str:
    shown = ", ".join(f"{value:g}" for value in list(values)[:count])
    return shown + (", ..." if len(values) > count else "")
