"""Volumes in, label maps out, with the affine and header of what came in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from fovea.data import volumes
from fovea.data.volumes import ENDINGS, Case
from fovea.errors import UsageError, UserError
from fovea.tasks import configuration
from fovea.tasks.progress import bar
from fovea.tasks.segmentation.coding import Coded
from fovea.tasks.segmentation.config import Data
from fovea.tasks.segmentation.measure import passes, segmented
from fovea.tasks.segmentation.sources import checked

CHANGEABLE = ("overlap", "blend", "flips", "roi", "modalities")
"""What of the preparation may differ from training."""


def changed(data: Data, options: dict[str, Any]) -> Data:
    """The preparation with the options of the command line."""
    known = {field.name for field in fields(Data)}
    for name in options:
        if name not in CHANGEABLE:
            there = "is that of the training" if name in known else "is no option"
            raise UsageError(f"{name} {there}; options are {', '.join(CHANGEABLE)}")
    words = [
        f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in options.items()
    ]
    data = configuration.override(data, words)
    if not 0 <= data.overlap < 1 or min(data.roi) < 1:
        raise UsageError(f"overlap={data.overlap}, roi={data.roi}; overlap must be in [0, 1), roi at least 1 voxel")
    return data


def predict(
    network: nn.Module,
    data: Data,
    coding: Coded,
    inputs: Sequence[Path],
    output: Path,
    *,
    channels: int,
    quiet: bool = False,
) -> list[Path]:
    """Segment cases: folders with a file for each modality, or single NIfTI files with all of them (one, or a fourth
    axis). ``output`` is a NIfTI file for one case, else a folder. Returns what was written.

    Every case is read and checked before the first is segmented where that costs little (its files must be there);
    label maps are written whole or not at all.
    """
    cases = [case for path in inputs for case in _cases(path, data, channels)]
    targets = _targets(cases, output)
    written = []
    for case, target in zip(cases, targets, strict=True):
        volume = checked(volumes.read(case, labels=False), channels)
        with bar(case.name, passes(volume, data), quiet=quiet) as advance:
            masks = segmented(network, volume, data, coding, progress=advance)
        written.append(volumes.save(target, coding.label_map(masks), case.images[0]))
        if not quiet:
            counts = ", ".join(f"{name} {int(mask.sum())}" for name, mask in zip(coding.names, masks, strict=True))
            print(f"{case.name} -> {target} (voxels: {counts})", file=sys.stderr)
    return written


def _cases(path: Path, data: Data, channels: int) -> list[Case]:
    if path.is_file():
        if not path.name.lower().endswith(ENDINGS):
            raise UserError(f"{path}: it must be a folder of modalities, or end in .nii.gz or .nii")
        return [Case(path.name.split(".nii")[0], (path,))]
    if channels == 1 and not any((path / f"{path.name}_{name}.nii.gz").is_file() for name in data.modalities):
        files = sorted(file for file in path.iterdir() if file.name.lower().endswith(ENDINGS))
        if not files:
            raise UserError(f"{path} holds no NIfTI file")
        return [Case(file.name.split(".nii")[0], (file,)) for file in files]
    if any(file.name.lower().endswith(ENDINGS) for file in path.iterdir()):
        return [volumes.brats_case(path, data.modalities)]
    return volumes.cases(path, data.modalities)[0]


def _targets(cases: Sequence[Case], output: Path) -> list[Path]:
    if not cases:
        raise UserError("there is nothing to segment")
    named = output.name.lower().endswith(ENDINGS) and not output.is_dir()
    if named and len(cases) > 1:
        raise UsageError(f"output {output} is a file; {len(cases)} cases need a folder")
    if not named and (output.is_file() or output.suffix in (".gz", ".png", ".mha", ".nrrd")):
        raise UsageError(f"output {output}: it must end in .nii.gz or .nii, or be a folder")
    targets = [output] if named else [output / f"{case.name}_seg.nii.gz" for case in cases]
    if len(set(targets)) < len(targets):
        raise UsageError("two cases have the same name and would be written to the same file")
    inputs = {file.resolve() for case in cases for file in case.images}
    for target in targets:
        if target.resolve() in inputs:
            raise UsageError(f"output {target} is an input itself; choose another name")
    return targets
