"""Normalisation of channels-first feature maps by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["batch", "group"]


def channel_norm(kind: Norm, channels: int, *, groups: int = 8) -> nn.Module:
    """Normalisation of ``[B, channels, H, W]``: over the batch, or over groups of channels of each image alone.

    Args:
        kind: ``"batch"`` (its running statistics count in evaluation) or ``"group"``, which batches of one image need.
        groups: at most so many groups; the largest number that divides ``channels``.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(count for count in range(1, groups + 1) if channels % count == 0), channels)
    raise ValueError(f"norm={kind!r}; it must be 'batch' or 'group'")
