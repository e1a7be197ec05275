"""Rotary position embedding (arXiv 2104.09864): queries and keys turned by their positions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def turns(
    position: Int64[Tensor, "rows tokens"], head_dim: int, *, base: float = 10000.0, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "rows tokens 1 pairs"], Float[Tensor, "rows tokens 1 pairs"]]:
    """Cosine and sine of ``position * base ** (-2 i / head_dim)`` for each pair ``i`` of channels, in ``dtype``.

    Raises ``ValueError`` where ``head_dim`` is odd.
    """
    if head_dim % 2:
        raise ValueError(f"head_dim={head_dim}; rotary positions turn pairs of channels, so it must be even")
    rates = base ** (torch.arange(0, head_dim, 2, device=position.device, dtype=dtype) / -head_dim)
    angle = (position[..., None] * rates)[:, :, None]
    return angle.cos(), angle.sin()


def rotate(
    x: Float[Tensor, "batch tokens heads head_dim"],
    cosine: Float[Tensor, "rows tokens 1 pairs"],
    sine: Float[Tensor, "rows tokens 1 pairs"],
    *,
    interleaved: bool = False,
) -> Float[Tensor, "batch tokens heads head_dim"]:
    """Turn each pair of channels of queries or keys by its angle (:func:`turns`; ``rows`` is the batch, or 1 where all
    rows stand alike).

    With ``interleaved``, pairs are neighbouring channels (the paper's form); else channel ``i`` and
    ``i + head_dim / 2`` (that of Llama and of most models since).
    """
    if interleaved:
        first, second = x[..., ::2], x[..., 1::2]
        turned = torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-1).flatten(-2)
    else:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return turned.to(x.dtype)
