"""Volumes of any size through a window that slides over them (MONAI's), with blending and flips at test time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from fovea.tasks.segmentation.monai import monai, quietly


def windows(size: Sequence[int], roi: Sequence[int], overlap: float) -> int:
    """How many positions a window ``roi`` has on a volume of this size."""
    inside = [max(n, side) for n, side in zip(size, roi, strict=True)]
    steps = [side if n == side else max(1, int(side * (1 - overlap))) for n, side in zip(inside, roi, strict=True)]
    return len(monai("data.utils").dense_patch_slices(inside, list(roi), steps))


@torch.no_grad()
def slide(
    predict: Callable[[Tensor], Tensor],
    volume: Tensor,
    roi: Sequence[int],
    *,
    overlap: float = 0.5,
    blend: Literal["gaussian", "constant"] = "gaussian",
    flips: bool = False,
    device: torch.device | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Tensor:
    """``[batch, channels, *size]`` to the logits of every voxel, on the CPU.

    Logits of overlapping windows are averaged, not probabilities. One window at a time is on ``device``, the volume and
    the sums stay on the CPU, so that memory there does not grow with the volume.

    Args:
        predict: the network.
        roi: size of the window.
        overlap, blend: of windows; ``gaussian`` weighs their middle more.
        flips: average over the volume flipped in all ways along its axes.
        progress: called after each window.
    """
    found: Tensor | None = None
    axes = list(range(2, volume.ndim))
    ways = [[a for a, flip in zip(axes, way, strict=True) if flip] for way in product((0, 1), repeat=len(axes))]

    def one(window: Tensor) -> Tensor:
        logits = predict(window)
        progress()
        return logits

    for flipped in ways if flips else [[]]:
        with quietly():
            logits = monai("inferers").sliding_window_inference(
                volume.flip(flipped) if flipped else volume,
                list(roi),
                1,
                one,
                overlap=overlap,
                mode=blend,
                sw_device=device,
                device=torch.device("cpu"),
            )
        logits = logits.flip(flipped) if flipped else logits
        found = logits if found is None else found.add_(logits)
    assert found is not None
    return found.div_(len(ways)) if flips else found
