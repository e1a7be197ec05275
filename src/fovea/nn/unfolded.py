"""The naive twin of overlapping cross-attention: keys and values copied into overlapping windows, as HAT's authors do.

Kept as the definition that :class:`fovea.nn.GridAttention` with ``Halo(window, halo, "zero")`` is held to, and as what
its memory is measured against: the copies hold ``((window + 2 halo) / window) ** 2`` times the keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.nn.attention import GridAttention
from fovea.patterns import Halo
from fovea.patterns.pattern import at_axis


def unfolded(layer: GridAttention, x: Tensor) -> Tensor:
    """What ``layer`` computes, by unfolding: ``[B, H, W, C] -> [B, H, W, C]``; H, W multiples of the window.

    Raises:
        ValueError: when the layer's pattern is not a square halo with zeros beyond the border.
    """
    pattern, bias, heads = layer.pattern, layer.bias, layer.num_heads
    if not isinstance(pattern, Halo) or pattern.border != "zero":
        raise ValueError(f"pattern={pattern}; it must be a halo with border=zero")
    window, halo = at_axis(pattern.block, 0), at_axis(pattern.halo, 0)
    wide = window + 2 * halo
    batch, height, width = x.shape[:3]
    rows, columns = height // window, width // window
    query, key, value = layer.qkv(x).chunk(3, -1)
    query = query.reshape(batch, rows, window, columns, window, heads, -1)
    query = query.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5)  # [B, rows, columns, heads, window ** 2, head_dim]
    copies = F.unfold(torch.cat([key, value], -1).movedim(-1, 1), wide, stride=window, padding=halo)
    copies = copies.reshape(batch, 2, heads, -1, wide * wide, rows, columns)
    keys, values = copies.permute(1, 0, 5, 6, 2, 4, 3)  # [B, rows, columns, heads, wide ** 2, head_dim]
    logits = query @ keys.mT * (query.shape[-1] ** -0.5 if layer.scale is None else layer.scale)
    if bias is not None:
        place = torch.arange(wide, device=x.device)[None] - halo - torch.arange(window, device=x.device)[:, None]
        offset = place + window + halo - 1  # [window, wide]: key minus query, counted from the smallest
        logits = logits + bias[:, offset[:, None, :, None], offset[None, :, None, :]].flatten(3, 4).flatten(1, 2)
    out = (logits.softmax(-1) @ values).unflatten(4, (window, window))
    return layer.project(out.permute(0, 1, 4, 2, 5, 3, 6).reshape(x.shape))
