"""What a network makes of the volumes held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fovea.data.volumes import Volume
from fovea.errors import UserError
from fovea.tasks.progress import bar
from fovea.tasks.segmentation import metrics
from fovea.tasks.segmentation.coding import Coded
from fovea.tasks.segmentation.config import Data
from fovea.tasks.segmentation.inference import slide, windows
from fovea.tasks.segmentation.metrics import Measured
from fovea.tasks.segmentation.preparation import normalised
from fovea.tasks.segmentation.sources import Source

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Result:
    """One case: its volume, the masks of truth and prediction, and what was measured of each mask."""

    volume: Volume
    truth: Masks
    prediction: Masks
    measured: Sequence[Measured]


def segmented(
    network: nn.Module, volume: Volume, data: Data, coding: Coded, progress: Callable[[], object] = lambda: None
) -> Masks:
    """The masks that the network, in evaluation mode, finds in a volume."""
    image = torch.from_numpy(normalised(volume.image))[None]
    device = next(network.parameters()).device
    logits = slide(
        network,
        image,
        data.roi,
        overlap=data.overlap,
        blend=data.blend,
        flips=data.flips,
        device=device,
        progress=progress,
    )
    return coding.predicted(logits[0])


def passes(volume: Volume, data: Data) -> int:
    """How often the network is applied to a volume."""
    return windows(volume.image.shape[1:], data.roi, data.overlap) * (8 if data.flips else 1)


def results(network: nn.Module, source: Source, data: Data, *, quiet: bool = True) -> list[Result]:
    """Every case held out."""
    if not source.held_out:
        raise UserError(f"{source.name} has no case to measure on")
    found = []
    with bar("measuring", len(source.held_out), quiet=quiet) as advance:
        for volume in source.volumes():
            if volume.labels is None:
                raise UserError(f"{volume.name} has no labels to measure with")
            truth = source.coding.truth(volume.labels, volume.name)
            prediction = segmented(network.eval(), volume, data, source.coding)
            found.append(Result(volume, truth, prediction, metrics.measure(prediction, truth, volume.spacing)))
            advance({"dice": float(np.nanmean([0.0, *(m.dice for m in found[-1].measured)]))})
    return found


def summary(found: Sequence[Result], coding: Coded) -> dict[str, float]:
    """See :func:`fovea.tasks.segmentation.metrics.summary`."""
    return metrics.summary([result.measured for result in found], coding.names)
