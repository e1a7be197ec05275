"""Self-attention of token grids under any grid pattern."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

import fovea
from fovea.nn.linear import Linear
from fovea.patterns import GridPattern, Neighborhood
from fovea.patterns.pattern import Grid, PerAxis


class GridAttention(nn.Module):
    """Multi-head self-attention in which ``pattern`` says what each token sees.

    One class for window attention (``Window(16, shift=8)``), overlapping cross-attention (``Halo(16, 4, "zero")``),
    HaloNet, neighborhood and full attention, on grids of 1 to 3 axes. With logits ``scale * q.k + bias[h, offset]``,
    where the offset of an axis is ``(key - position) / step`` counted from the smallest that the pattern knows.

    Keys that ``Halo(..., border="zero")`` finds outside the grid are zeros *after* the projection: its bias does not
    reach them, their logit is the relative bias alone and their value is zero.

    Shapes: ``[B, *grid, dim] -> [B, *grid, dim]``.

    Args:
        dim, num_heads: channels; ``num_heads`` divides ``dim``.
        pattern: what each token sees.
        bias_grid: a grid to size the table of relative biases for, or none for no bias. Local patterns only take its
            number of axes; patterns that see a whole axis (``Full``, ``Causal``) need the very grid they will meet.
        qkv_bias: whether the projection to query, key and value has a bias.
        scale: of the logits; ``(dim / num_heads) ** -0.5`` unless given.
        dropout: after the output projection.
        backend: of the operator.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        pattern: GridPattern,
        *,
        bias_grid: Grid | None = None,
        qkv_bias: bool = True,
        scale: float | None = None,
        dropout: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads={num_heads}; it must divide dim={dim}")
        self.num_heads = num_heads
        self.pattern = pattern
        self.scale = scale
        self.backend = backend
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.bias = None if bias_grid is None else nn.Parameter(torch.empty(num_heads, *pattern.bias_shape(bias_grid)))
        self.project = Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        if self.bias is not None:
            nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)  # [B, *grid, heads, head_dim]
        out = fovea.attention(query, key, value, self.pattern, bias=self.bias, scale=self.scale, backend=self.backend)
        return self.dropout(self.project(out.flatten(-2)))

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, pattern={self.pattern}"


class NeighborhoodAttention(GridAttention):
    """Neighborhood attention in the words of NAT, DiNAT and NATTEN (arXiv 2204.07143, 2209.15001, 2403.04690).

    Without a relative bias one module serves inputs of 1, 2 and 3 grid axes; a bias table, and parameters that are
    tuples, fix the number. Each axis needs at least ``kernel_size * dilation`` tokens.

    Shapes: ``[B, *grid, embed_dim] -> [B, *grid, embed_dim]``.

    Args:
        embed_dim, num_heads: channels; ``num_heads`` divides ``embed_dim``.
        kernel_size, stride, dilation, is_causal: of each axis, or one for all.
        qkv_bias, qk_scale, proj_drop: bias of the projection, scale of the logits, dropout of the output.
        rel_pos_bias: learn a table of relative biases, ``[heads, 2 k - 1, ...]``.
        axes: number of grid axes, needed with ``rel_pos_bias`` when ``kernel_size`` is an integer.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        dilation: PerAxis = 1,
        is_causal: bool | tuple[bool, ...] = False,
        *,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_drop: float = 0.0,
        rel_pos_bias: bool = False,
        axes: int | None = None,
    ) -> None:
        pattern = Neighborhood(kernel_size, stride, dilation, is_causal)
        axes = pattern.ndim if axes is None else axes
        if rel_pos_bias and axes is None:
            raise ValueError(f"axes=None; with rel_pos_bias and kernel_size={kernel_size} it must be 1, 2 or 3")
        super().__init__(
            embed_dim,
            num_heads,
            pattern,
            bias_grid=(1,) * axes if rel_pos_bias and axes is not None else None,
            qkv_bias=qkv_bias,
            scale=qk_scale,
            dropout=proj_drop,
        )
