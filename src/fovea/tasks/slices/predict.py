"""Slices and volumes in, label maps out, in the input's own format: NIfTI with its affine and header, archives, PNG."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fovea.data import scans
from fovea.errors import UsageError, UserError, unknown
from fovea.tasks import configuration
from fovea.tasks.progress import bar
from fovea.tasks.slices import preparation
from fovea.tasks.slices.config import Data
from fovea.tasks.slices.measure import segmented

OPTIONS = ("axis", "intensity", "low", "high", "fit", "size")
"""What of the preparation may be said anew."""


def changed(data: Data, options: Mapping[str, Any]) -> Data:
    """The preparation with words from the command line; raises ``UsageError`` for those it does not have."""
    for name in options:
        if name not in OPTIONS:
            raise unknown("option", name, OPTIONS)
    return configuration.override(data, [f"{name}={value}" for name, value in options.items()])


def predict(
    network: nn.Module,
    data: Data,
    classes: Sequence[str],
    inputs: Sequence[Path],
    output: Path,
    *,
    quiet: bool = False,
) -> list[Path]:
    """Segment files and write them to ``output``: a file for one input, else a folder. Returns what was written."""
    files = [file for path in inputs for file in (_inside(path) if path.is_dir() else [path])]
    targets = _targets(files, output)
    written = []
    for file, target in zip(files, targets, strict=True):
        image = scans.image(file, axis=data.axis)
        rule = data
        if data.intensity == "unit" and (float(image.min()) < -0.5 or float(image.max()) > 1.5):
            raise UserError(
                f"{file} holds values from {image.min():g} to {image.max():g}; the network was trained on [0, 1]"
            )
        if data.intensity == "auto":
            volume = scans.ending(file) in (".nii", ".nii.gz")
            rule = preparation.resolved(data, "pairs", "") if not volume else preparation.resolved(data, "msd", "")
        with bar(file.name, len(image), quiet=quiet) as advance:
            found = segmented(
                network, preparation.scaled(image, rule), rule, progress=lambda count: advance(steps=count)
            )
        written.append(scans.save(target, found, file, axis=data.axis))
        if not quiet:
            counts = np.bincount(found.ravel(), minlength=len(classes))
            shares = ", ".join(f"{name} {count}" for name, count in zip(classes[1:], counts[1:], strict=True))
            print(f"{file} -> {target} (voxels: {shares})", file=sys.stderr)
    return written


def _inside(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.iterdir()) if scans.ending(path) and not path.name.startswith(".")]
    if not found:
        raise UserError(f"{folder} holds no slice or volume ({', '.join(scans.ENDINGS)})")
    return found


def _targets(files: Sequence[Path], output: Path) -> list[Path]:
    for file in files:
        if scans.ending(file) is None:
            raise UsageError(f"input {file}: it must end in {', '.join(scans.ENDINGS)}")
    into_folder = len(files) > 1 or output.is_dir() or scans.ending(output) is None
    if into_folder and len(files) == 1 and output.suffix and not output.is_dir():
        raise UsageError(f"output {output}: a file must end in {', '.join(scans.ENDINGS)}, and there is no such folder")
    if not into_folder:
        targets = [output]
    else:
        if output.is_file():
            raise UsageError(f"output {output} is a file; {len(files)} inputs need a folder")
        targets = [output / f"{scans.stem(file)}-seg{scans.ending(file)}" for file in files]
    if len(set(targets)) < len(targets):
        raise UsageError("two inputs have the same name and would be written to the same file")
    for file, target in zip(files, targets, strict=True):
        if target.exists() and file.exists() and target.samefile(file):
            raise UsageError(f"output {target} is the input itself; choose another name")
    return targets
