"""Dice and HD95 of masks in both conventions: MONAI's, and that of the BraTS server.

They differ where a structure is missing. MONAI leaves a case without the structure out of the mean of Dice (NaN), and
its HD95 is NaN or infinite. The server counts an empty truth that is predicted empty as Dice 1 and HD95 0, and one that
is missed, or invented, as Dice 0 and as HD95 the diagonal of the volume (373.13 mm for BraTS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fovea.tasks.segmentation.monai import monai, quietly

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """One mask of one case. Distances are in the unit of the spacing."""

    dice: float
    hd95: float
    dice_server: float
    hd95_server: float
    missed: bool
    """There in truth, and no voxel of it was predicted right."""


def dice(prediction: Tensor, truth: Tensor, *, ignore_empty: bool = True) -> Tensor:
    """MONAI's Dice of masks ``[batch, channels, *size]``: ``[batch, channels]``, NaN (or 1 and 0) for empty truth."""
    with quietly():
        return monai("metrics").compute_dice(prediction, truth, include_background=True, ignore_empty=ignore_empty)


def hausdorff(
    prediction: Tensor, truth: Tensor, *, percentile: float = 95, spacing: Sequence[float] | None = None
) -> Tensor:
    """MONAI's percentile Hausdorff distance, the larger of the two directions: ``[batch, channels]``."""
    with quietly():
        return monai("metrics").compute_hausdorff_distance(
            prediction,
            truth,
            include_background=True,
            percentile=percentile,
            spacing=None if spacing is None else list(spacing),
        )


def measure(prediction: Masks, truth: Masks, spacing: Sequence[float]) -> list[Measured]:
    """Each mask ``[masks, *size]`` of one case."""
    batch = torch.from_numpy(np.stack([prediction, truth]).astype(np.uint8)).unbind(0)
    mine, theirs = (masks[None] for masks in batch)
    overlaps, distances = dice(mine, theirs)[0], hausdorff(mine, theirs, spacing=spacing)[0]
    diagonal = float(np.linalg.norm(np.array(truth.shape[1:]) * np.array(spacing)))
    found = []
    for p, t, overlap, distance in zip(prediction, truth, overlaps, distances, strict=True):
        both, one = not p.any() and not t.any(), p.any() != t.any()
        found.append(
            Measured(
                float(overlap),
                float(distance),
                1.0 if both else 0.0 if one else float(overlap),
                0.0 if both else diagonal if one else float(distance),
                bool(t.any() and not (p & t).any()),
            )
        )
    return found


def summary(cases: Sequence[Sequence[Measured]], names: Sequence[str]) -> dict[str, float]:
    """Means over cases, each mask by its name in lower case, and the mean over masks.

    ``dice`` and ``dice_server`` in either convention, ``hd95`` as the server has it, ``hd95_found`` over the cases
    where truth and prediction both have the structure, ``missed`` how many cases have it and nothing of it was found.
    A mean of nothing is left out.
    """
    found: dict[str, float] = {}
    columns: dict[str, list[float]] = {"dice": [], "dice_server": [], "hd95": [], "hd95_found": []}
    for index, name in enumerate(names):
        masks, end = [case[index] for case in cases], name.lower().replace(" ", "_")
        values = {
            "dice": [m.dice for m in masks if not np.isnan(m.dice)],
            "dice_server": [m.dice_server for m in masks],
            "hd95": [m.hd95_server for m in masks],
            "hd95_found": [m.hd95 for m in masks if np.isfinite(m.hd95)],
        }
        for kind, several in values.items():
            if several:
                found[f"{kind}_{end}"] = float(np.mean(several))
                columns[kind].append(found[f"{kind}_{end}"])
        found[f"missed_{end}"] = float(sum(m.missed for m in masks))
    return {kind: float(np.mean(several)) for kind, several in columns.items() if several} | found
