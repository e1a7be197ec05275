"""Rotary position embedding (arXiv 2104.09864): queries and keys turned by their positions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def rotate(
    x: Float[Tensor, "batch tokens heads head_dim"],
    position: Int64[Tensor, "rows tokens"],
    *,
    base: float = 10000.0,
    interleaved: bool = False,
) -> Float[Tensor, "batch tokens heads head_dim"]:
    """Turn each pair ``i`` of channels by ``position * base ** (-2 i / head_dim)``, in float32 or wider.

    Args:
        x: queries or keys; ``head_dim`` is even.
        position: of each token; ``rows`` is the batch, or 1 where all rows stand alike.
        base: theta of the method.
        interleaved: pairs are neighbouring channels (the paper's form); else channel ``i`` and ``i + head_dim / 2``
            (that of Llama and of most models since).

    Raises ``ValueError`` where ``head_dim`` is odd.
    """
    width = x.shape[-1]
    if width % 2:
        raise ValueError(f"x has heads of {width} channels; rotary positions turn pairs, so the number must be even")
    dtype = torch.promote_types(x.dtype, torch.float32)
    rates = base ** (torch.arange(0, width, 2, device=x.device, dtype=dtype) / -width)
    angle = (position[..., None] * rates)[:, :, None]  # [rows, tokens, 1, head_dim / 2]
    cosine, sine = angle.cos(), angle.sin()
    if interleaved:
        first, second = x[..., ::2], x[..., 1::2]
        turned = torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-1).flatten(-2)
    else:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return turned.to(x.dtype)
