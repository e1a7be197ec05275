"""Dice, HD95, overlap and recall of small structures, as the published code counts them and as they should be counted.

The two differ in what is done where a class is missing. Officially (``empty="official"``) a missed structure has an
HD95 of **0**, the best there is, and a class absent from truth and prediction a Dice of 1, so that means are flattered
by both. Here (``empty="penalise"``, the default) a class that is in neither says nothing and is left out; one that is
in only one of them has Dice 0 and the HD95 of the volume's diagonal, the largest that is possible; with
``empty="leave-out"`` it has no HD95.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import directed_hausdorff

from fovea.data.masks import Mask, depth_inside, parts, surface

Labels = NDArray[np.uint8]
Empty = Literal["penalise", "leave-out", "official"]


@dataclass(frozen=True)
class Overlap:
    """Dice and HD95 (in voxels, or in the unit of ``spacing``) of one class in one case; NaN where it is left out."""

    dice: float
    hd95: float

    @property
    def iou(self) -> float:
        """``|P & T| / |P | T|``, which Dice determines."""
        return self.dice / (2 - self.dice)


def overlap(
    prediction: Mask, truth: Mask, *, empty: Empty = "penalise", spacing: Sequence[float] | None = None
) -> Overlap:
    """Dice ``2 |P & T| / (|P| + |T|)`` and HD95 of two masks of equal shape; for ``empty`` see the module's text.

    HD95 is the 95th percentile of the distances of each surface's voxels to the other surface, both directions pooled;
    surfaces are voxels with a neighbour (by a face) outside of the mask or of the volume (as medpy has it).
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape} and truth {truth.shape}; they must be the same")
    if prediction.any() and truth.any():
        dice = 2 * int((prediction & truth).sum()) / (int(prediction.sum()) + int(truth.sum()))
        return Overlap(dice, _hd95(prediction, truth, spacing))
    both = not prediction.any() and not truth.any()
    if empty == "official":
        return Overlap(1.0 if both else 0.0, 0.0)
    if both:
        return Overlap(nan, nan)
    lengths = np.array(truth.shape) * (np.ones(truth.ndim) if spacing is None else np.array(spacing))
    return Overlap(0.0, float(np.linalg.norm(lengths)) if empty == "penalise" else nan)


def per_class(prediction: Labels, truth: Labels, classes: int, *, empty: Empty = "penalise") -> list[Overlap]:
    """``overlap`` of each class but the background; voxels whose truth is 255 are in no mask."""
    known = truth != 255
    return [overlap((prediction == c) & known, truth == c, empty=empty) for c in range(1, classes)]


def hausdorff_of_foreground(prediction: Labels, truth: Labels) -> float:
    """What the official code for LiTS calls HD95 of a slice: the largest distance from any voxel of one foreground to
    the other foreground, not of surfaces and no percentile; 0 where one is empty. ``[H, W]``."""
    first, second = (np.argwhere(mask > 0) for mask in (prediction, np.where(truth == 255, 0, truth)))
    if not len(first) or not len(second):
        return 0.0
    return max(directed_hausdorff(first, second)[0], directed_hausdorff(second, first)[0])


@dataclass(frozen=True)
class Structure:
    """One connected structure of the truth: its radius (of a disc of equal area, in pixels), and whether it was found.

    It is found when its Dice with the predicted structures that touch it, less what they cover of other true ones, is
    at least one half. So a prediction of the class everywhere finds nothing.
    """

    radius: float
    found: bool


def structures(prediction: Mask, truth: Mask) -> tuple[list[Structure], int]:
    """The structures of a slice's truth (pixels joined by an edge or a corner), and how many structures of the
    prediction touch none of them."""
    true, count = parts(truth)
    predicted, predictions = parts(prediction)
    found = []
    for number in range(1, count + 1):
        part = true == number
        area = int(part.sum())
        touching = np.isin(predicted, np.setdiff1d(predicted[part], 0)) & (part | ~truth)
        dice = 2 * int((touching & part).sum()) / (area + int(touching.sum()))
        found.append(Structure((area / np.pi) ** 0.5, dice >= 0.5))
    return found, predictions - len(np.setdiff1d(predicted[truth], 0))


def recall_by_radius(found: Sequence[Structure], edges: Sequence[float]) -> dict[str, tuple[float, int]]:
    """``{"2-3 px": (share that was found, how many there are)}`` for each pair of neighbouring edges that has any."""
    recalls = {}
    for low, high in pairwise(edges):
        inside = [structure.found for structure in found if low <= structure.radius < high]
        if inside:
            name = f"{low:g}-{high:g} px" if np.isfinite(high) else f"{low:g} px and more"
            recalls[name if low else f"below {high:g} px"] = (sum(inside) / len(inside), len(inside))
    return recalls


def _hd95(prediction: Mask, truth: Mask, spacing: Sequence[float] | None) -> float:
    first, second = surface(prediction), surface(truth)
    there = depth_inside(~second, spacing)[first]
    back = depth_inside(~first, spacing)[second]
    return float(np.percentile(np.concatenate([there, back]), 95))
