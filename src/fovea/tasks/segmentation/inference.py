"""Volumes of any size through a window that slides over them (MONAI's), with blending and flips at test time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
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
    flips: Sequence[int] = (),
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
        flips: average over the volume flipped in all ways along these of its axes (0, 1, 2).
        progress: called after each window.
    """
    found: Tensor | None = None
    ways = [[axis + 2 for axis in chosen] for count in range(len(flips) + 1) for chosen in combinations(flips, count)]

    def one(window: Tensor) -> Tensor:
        logits = predict(window)
        progress()
        return logits

    for flipped in ways:
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
    return found.div_(len(ways))
