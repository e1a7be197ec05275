"""A network applied to whole scans, and what is measured on the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fovea.tasks.slices import metrics
from fovea.tasks.slices.config import Data
from fovea.tasks.slices.metrics import Overlap, Structure
from fovea.tasks.slices.preparation import LEAST, as_input, padded, zoomed
from fovea.tasks.slices.sources import Scan

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]

RADII = (0.0, 3.0, 4.0, 5.0, float("inf"))
"""Edges between the sizes that small structures are counted in: radii in pixels."""
TOGETHER = 8
"""Slices that go through the network at once."""


@dataclass(frozen=True)
class Result:
    """One case segmented: pictures ``[slices, H, W]`` and what was measured, class by class without the background."""

    name: str
    image: Floats
    truth: Labels
    prediction: Labels
    case: Sequence[Overlap]
    case_official: Sequence[Overlap]
    slices: Sequence[Sequence[Overlap]] = field(default_factory=list)
    slices_official: Sequence[Sequence[Overlap]] = field(default_factory=list)
    structures: Sequence[Structure] = field(default_factory=list)
    false_structures: int = 0
    foreground_distances: Sequence[float] = field(default_factory=list)


@torch.inference_mode()
def segmented(
    network: nn.Module, image: Floats, data: Data, *, progress: Callable[[int], None] = lambda count: None
) -> Labels:
    """The class of every voxel of ``[slices, H, W]`` in [0, 1], slice by slice, at the scan's own size.

    With ``zoom`` slices are enlarged or reduced to ``data.size`` (cubic) and the labels back (nearest); with ``pad``
    zeros are put around those that are smaller.
    """
    device = next(network.parameters()).device
    height, width = image.shape[1:]
    out = np.empty(image.shape, np.uint8)
    for first in range(0, len(image), TOGETHER):
        some = image[first : first + TOGETHER]
        if data.fit == "zoom":
            some = np.stack([zoomed(one, (data.size, data.size), 3) for one in some])
            classes = network(as_input(some).to(device)).argmax(1).to(torch.uint8).cpu().numpy()
            found = np.stack([zoomed(one, (height, width), 0) for one in classes])
        else:
            some, inside = padded(some, max(data.size, LEAST))
            classes = network(as_input(some).to(device)).argmax(1).to(torch.uint8).cpu().numpy()
            found = classes[(slice(None), *inside)]
        out[first : first + len(some)] = found
        progress(len(some))
    return out


def results(
    network: nn.Module,
    scans: Iterable[Scan],
    data: Data,
    classes: int,
    *,
    lits: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Segment every scan and measure it, by case and slice by slice, the official way and the right one.

    ``lits`` also measures what the official code for that data set calls HD95.
    """
    found = []
    for scan in scans:
        found.append(
            measured(scan, segmented(network, scan.image, data), classes, data.structures % classes, lits=lits)
        )
        progress()
    return found


def measured(scan: Scan, prediction: Labels, classes: int, small: int, *, lits: bool = False) -> Result:
    """What :func:`results` says of one scan; the structures of class ``small`` are counted."""
    structures, false = [], 0
    pairs = list(zip(prediction, scan.truth, strict=True))
    for predicted, truth in pairs:
        here, stray = metrics.structures((predicted == small) & (truth != 255), truth == small)
        structures += here
        false += stray
    many = len(pairs) > 1
    case, official = (
        metrics.per_class(
            prediction if many else prediction[0], scan.truth if many else scan.truth[0], classes, empty=empty
        )
        for empty in ("penalise", "official")
    )
    slices, slices_official = (
        [metrics.per_class(*pair, classes, empty=empty) for pair in pairs] for empty in ("penalise", "official")
    )
    distances = [metrics.hausdorff_of_foreground(*pair) for pair in pairs] if lits else []
    return Result(
        scan.name,
        scan.image,
        scan.truth,
        prediction,
        case,
        official,
        slices,
        slices_official,
        structures,
        false,
        distances,
    )


def summary(found: Sequence[Result], classes: Sequence[str]) -> dict[str, float]:
    """The flat numbers of an evaluation; classes without any case are left out.

    ``dice``, ``iou``, ``hd95`` (means over classes of the means over cases, right) and the same ``_official``; for
    each class ``dice_NAME``, ``hd95_NAME`` and both with ``_official``, and ``missed_NAME``, in how many cases it was
    there and nothing was found; for volumes the same of slices, ``slice_...``; ``recall`` of small structures and by
    size, ``recall_3_4_px``; ``false_structures``, a slice. HD95 is in voxels. For LiTS also
    ``hd_foreground_official``, a slice.
    """
    numbers = _means([result.case for result in found], [result.case_official for result in found], classes)
    for index, name in enumerate(classes[1:], start=1):
        there = [(result.truth == index).any() and not (result.prediction == index).any() for result in found]
        numbers[f"missed_{_word(name)}"] = float(sum(there))
    if any(len(result.truth) > 1 for result in found):
        slices = [overlaps for result in found for overlaps in result.slices]
        official = [overlaps for result in found for overlaps in result.slices_official]
        numbers |= {f"slice_{name}": value for name, value in _means(slices, official, classes).items()}
    structures = [structure for result in found for structure in result.structures]
    if structures:
        numbers["recall"] = float(np.mean([structure.found for structure in structures]))
        for name, (share, _) in metrics.recall_by_radius(structures, RADII).items():
            numbers[f"recall_{name.replace(' ', '_').replace('-', '_')}"] = share
    if distances := [distance for result in found for distance in result.foreground_distances]:
        numbers["hd_foreground_official"] = float(np.mean(distances))
    numbers["false_structures"] = sum(r.false_structures for r in found) / sum(len(r.truth) for r in found)
    return numbers


def _means(
    right: Sequence[Sequence[Overlap]], official: Sequence[Sequence[Overlap]], classes: Sequence[str]
) -> dict[str, float]:
    numbers: dict[str, float] = {}
    each: Mapping[str, list[float]] = {
        metric + suffix: [] for suffix in ("", "_official") for metric in ("dice", "iou", "hd95")
    }
    for index, name in enumerate(classes[1:]):
        for suffix, cases in (("", right), ("_official", official)):
            for metric in ("dice", "iou", "hd95"):
                values = np.array([getattr(case[index], metric) for case in cases], float)
                values = values[~np.isnan(values)]
                if len(values):
                    if metric != "iou":
                        numbers[f"{metric}_{_word(name)}{suffix}"] = float(values.mean())
                    each[metric + suffix].append(float(values.mean()))
    return {name: float(np.mean(values)) for name, values in each.items() if values} | numbers


def _word(name: str) -> str:
    return name.lower().replace(" ", "_")
