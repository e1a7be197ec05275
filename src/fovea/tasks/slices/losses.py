"""The loss of HBFormer's training: cross-entropy, Dice and focal loss, weighted (arXiv 2512.03597, official code)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional as F

IGNORED = 255
"""Label of pixels that no loss counts; negative labels mean the same."""
SMOOTH = 1e-5


def losses(
    logits: Float[Tensor, "batch classes height width"],
    labels: Integer[Tensor, "batch height width"],
    weights: tuple[float, float, float],
) -> dict[str, Tensor]:
    """``loss`` and its parts ``ce``, ``dice``, ``focal``; ``weights`` of the three in that order.

    * ``ce``: mean cross-entropy of the pixels.
    * ``dice``: over classes, the background among them, the mean of ``1 - (2 sum p g + e) / (sum p^2 + sum g^2 + e)``
      with ``p`` the softmax, ``g`` the truth as 0 and 1, sums over the whole batch and ``e = 1e-5``.
    * ``focal``: mean of ``(1 - p_t)^2`` times the cross-entropy, ``p_t`` the probability of the true class.
    """
    valid = (labels != IGNORED) & (labels >= 0)
    count = valid.sum().clamp_min(1)
    truth = torch.where(valid, labels, 0).long()
    entropy = F.cross_entropy(logits.float(), truth, reduction="none") * valid
    ce = entropy.sum() / count
    focal = ((1 - (-entropy).exp()).square() * entropy).sum() / count
    dice = dice_loss(logits.float().softmax(1), truth, valid)
    parts = {"ce": ce, "dice": dice, "focal": focal}
    return {"loss": torch.stack([w * part for w, part in zip(weights, parts.values(), strict=True)]).sum(), **parts}


def dice_loss(
    probabilities: Float[Tensor, "batch classes height width"],
    truth: Integer[Tensor, "batch height width"],
    valid: Tensor,
) -> Tensor:
    """See :func:`losses`; pixels that are not ``valid`` count neither as prediction nor as truth."""
    mask = valid[:, None].to(probabilities.dtype)
    p = probabilities * mask
    g = F.one_hot(truth, probabilities.shape[1]).movedim(-1, 1).to(p.dtype) * mask
    axes = (0, 2, 3)
    overlap, total = (p * g).sum(axes), p.square().sum(axes) + g.square().sum(axes)
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()
