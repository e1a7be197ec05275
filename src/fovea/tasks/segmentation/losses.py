"""What networks for volumes minimise: MONAI's Dice loss, alone or with the cross-entropy of each voxel."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from fovea.tasks.segmentation.config import Loss
from fovea.tasks.segmentation.monai import monai, quietly


def loss(config: Loss, *, regions: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of logits ``[B, channels, *size]`` and a target, ``[B, channels, *size]`` of overlapping regions (each
    with a sigmoid) or ``[B, 1, *size]`` of class numbers (softmax, the background counts).

    Dice is ``1 - (2 sum(p g) + 1e-5) / (sum p + sum g + 1e-5)``, the mean over channels and samples; squared, the
    denominator holds squares, 1e-6 is added there and nothing above.
    """
    words = {"squared_pred": True, "smooth_nr": 0.0, "smooth_dr": 1e-6} if config.squared else {}
    with quietly():
        dice = monai("losses").DiceLoss(sigmoid=regions, softmax=not regions, to_onehot_y=not regions, **words)

    def call(logits: Tensor, target: Tensor) -> Tensor:
        logits = logits.float()
        with quietly():
            found = dice(logits, target.float() if regions else target.long())
        if config.kind == "dice":
            return found
        # MONAI's DiceCELoss takes the softmax over regions here, which are not exclusive.
        if regions:
            return found + F.binary_cross_entropy_with_logits(logits, target.float())
        return found + F.cross_entropy(logits, target[:, 0].long())

    return call
