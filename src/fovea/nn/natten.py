"""Neighborhood attention under NATTEN's names (arXiv 2403.04690): a drop-in for code that was written for it.

    from fovea.nn.natten import NeighborhoodAttention2D, na2d

Runs wherever the operator does, also on CPUs, forward and backward.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

import fovea
from fovea.nn.attention import NeighborhoodAttention
from fovea.patterns import Neighborhood
from fovea.patterns.pattern import PerAxis

Causal = bool | tuple[bool, ...]


def na(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: PerAxis,
    stride: PerAxis = 1,
    dilation: PerAxis = 1,
    is_causal: Causal = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    *,
    backend: str = "auto",
    return_lse: bool = False,
) -> Any:
    """Neighborhood attention on a grid of 1 to 3 axes.

    Args:
        query: ``[B, *layout, heads, head_dim]``.
        key, value: ``[B, *layout, kv_heads, head_dim]`` and ``[B, *layout, kv_heads, value_dim]``.
        kernel_size, stride, dilation, is_causal: of each axis, or one for all.
        scale: of the logits; ``head_dim ** -0.5`` unless given.
        additional_keys, additional_values: ``[B, extra, kv_heads, ...]``, seen by every query.
        backend: of the operator, not of NATTEN.
        return_lse: also return the log-sum-exp ``[B, *layout, heads]``.

    Returns:
        ``[B, *layout, heads, value_dim]``, or that and the log-sum-exp.

    Raises:
        ValueError: when a window does not fit: each axis needs ``kernel_size * dilation`` tokens, stride at most
            ``kernel_size``.
    """
    out, lse = fovea.attention(
        query,
        key,
        value,
        Neighborhood(kernel_size, stride, dilation, is_causal),
        extra_key=additional_keys,
        extra_value=additional_values,
        scale=scale,
        backend=backend,
        return_lse=True,
    )
    return (out, lse) if return_lse else out


def na1d(query: Tensor, *args: Any, **kwargs: Any) -> Any:
    """:func:`na` on a sequence, ``[B, L, heads, head_dim]``."""
    return na(_laid_out(query, 1), *args, **kwargs)


def na2d(query: Tensor, *args: Any, **kwargs: Any) -> Any:
    """:func:`na` on an image, ``[B, H, W, heads, head_dim]``."""
    return na(_laid_out(query, 2), *args, **kwargs)


def na3d(query: Tensor, *args: Any, **kwargs: Any) -> Any:
    """:func:`na` on a volume or video, ``[B, T, H, W, heads, head_dim]``."""
    return na(_laid_out(query, 3), *args, **kwargs)


class _Fixed(NeighborhoodAttention):
    """Neighborhood attention for one number of grid axes."""

    rank: ClassVar[int]

    def __init__(self, embed_dim: int, num_heads: int, kernel_size: PerAxis, *args: Any, **kwargs: Any) -> None:
        size = (kernel_size,) * self.rank if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(size) != self.rank:
            raise ValueError(f"kernel_size={kernel_size}; {type(self).__name__} needs {self.rank}")
        names = ("stride", "dilation", "is_causal", "qkv_bias", "qk_scale", "proj_drop")
        super().__init__(embed_dim, num_heads, size, **dict(zip(names, args, strict=False)), **kwargs)


class NeighborhoodAttention1D(_Fixed):
    """:class:`fovea.nn.NeighborhoodAttention` of sequences, ``[B, L, C]``."""

    rank = 1


class NeighborhoodAttention2D(_Fixed):
    """:class:`fovea.nn.NeighborhoodAttention` of images, ``[B, H, W, C]``."""

    rank = 2


class NeighborhoodAttention3D(_Fixed):
    """:class:`fovea.nn.NeighborhoodAttention` of volumes and videos, ``[B, T, H, W, C]``."""

    rank = 3


def _laid_out(query: Tensor, axes: int) -> Tensor:
    if query.ndim != axes + 3:
        raise ValueError(
            f"query has shape {tuple(query.shape)}; with {axes} grid axes it must have {axes + 3} dimensions"
        )
    return query
