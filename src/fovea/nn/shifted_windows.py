"""Shifted window attention on grids of 2 and 3 axes, in both orders of padding and with both rules for small grids.

Swin (arXiv 2103.14030, section 3.2), its three-dimensional form in Swin UNETR (arXiv 2201.01266), and the places where
implementations differ. A grid that is no multiple of the window is filled with zero tokens *after* the normalisation:
what the projection makes of them is its bias, and they are **not masked**; real tokens attend to them.

Nothing is filled here. Softmax does not change when every key moves by the same vector, and its weights add up to one:
with ``k' = k - b_k`` and ``v' = v - b_v`` the filled keys and values are exact zeros, which ``Window(..., "zero")``
takes as such without computing them, and the output is what it would have been less ``b_v``. Only real tokens are
projected, and only real queries computed.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

import fovea
from fovea.nn.drop_path import DropPath
from fovea.nn.linear import Linear
from fovea.nn.mlp import MLP
from fovea.patterns import Window
from fovea.patterns.pattern import Grid, PerAxis, at_axis

Order = Literal["pad-roll", "roll-pad"]
"""Whether the grid is filled up before it is rolled (Swin of Microsoft and MONAI) or after (timm)."""

ShrunkBias = Literal["geometric", "official"]
"""How a window smaller than the nominal one reads the table of relative biases."""


def window_in_use(grid: Grid, window: PerAxis, shift: PerAxis) -> tuple[Grid, Grid]:
    """Window and shift on ``grid``: an axis that fits in the window gets a window of its size and no shift.

    >>> window_in_use((6, 14, 7), 7, 3)
    ((6, 7, 7), (0, 3, 0))
    """
    fits = [n <= at_axis(window, axis) for axis, n in enumerate(grid)]
    sizes = tuple(n if fit else at_axis(window, axis) for axis, (n, fit) in enumerate(zip(grid, fits, strict=True)))
    return sizes, tuple(0 if fit else at_axis(shift, axis) for axis, fit in enumerate(fits))


def shifted_window_attention(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid heads head_dim"],
    value: Float[Tensor, "batch *grid heads value_dim"],
    window: PerAxis,
    shift: PerAxis = 0,
    *,
    bias: Tensor | None = None,
    order: Order = "pad-roll",
    scale: float | None = None,
    backend: str = "auto",
) -> Float[Tensor, "batch *grid heads value_dim"]:
    """Attention in (shifted) windows of a grid whose end is filled with zero keys and values that are seen.

    ``key`` and ``value`` come *less* what a filled token's would be (usually the projection's bias); add the value's
    part back to the result.

    Args:
        query, key, value: of the real tokens.
        window, shift: of each axis, or one for all; ``shift`` is 0 to ``window - 1``.
        bias: ``[heads, 2 window - 1, ...]``, by key minus query, smallest first.
        order: of filling up and rolling; they differ only where the grid is no multiple of the window.
        scale, backend: of the operator.
    """
    grid = tuple(query.shape[1:-2])
    missing = [-n % at_axis(window, axis) for axis, n in enumerate(grid)]
    shifts = [at_axis(shift, axis) for axis in range(len(grid))]
    if order == "pad-roll" or not any(missing) or not any(shifts):
        pattern = _text(window, shift, "zero")
        return fovea.attention(query, key, value, pattern, bias=bias, scale=scale, backend=backend)
    # Rolled on the real grid, filled up, and rolled back on the filled grid: there the regions of the mask are windows.
    axes, back = list(range(1, len(grid) + 1)), [-shift for shift in shifts]
    query, key, value = (_filled(x.roll(back, axes), missing).roll(shifts, axes) for x in (query, key, value))
    out = fovea.attention(query, key, value, _text(window, shift), bias=bias, scale=scale, backend=backend)
    out = out.roll(back, axes)
    for axis, n in enumerate(grid, 1):
        out = out.narrow(axis, 0, n)
    return out.roll(shifts, axes)


class ShiftedWindowAttention(nn.Module):
    """Multi-head self-attention in (shifted) windows of a grid of any size.

    On an axis that fits in the window, the window is the axis and there is no shift (``shrink=False``: the window stays
    as it is and the axis is filled up). ``shrunk_bias`` says what a smaller window reads from the table of the nominal
    one:

    * ``"geometric"``: the entry of the true offset;
    * ``"official"``: the published code numbers the tokens of the small window ``0, 1, ...`` and reads the table as if
      they were the first tokens of the nominal window, row by row. Trained checkpoints depend on it.

    Shapes: ``[B, *grid, dim] -> [B, *grid, dim]``.

    Args:
        dim, num_heads: channels; ``num_heads`` divides ``dim``.
        window: size of each axis, as a tuple of 2 or 3.
        shift: of each axis, or one for all; 0 for windows that are not shifted, customarily ``window // 2``.
        order: ``"pad-roll"`` or ``"roll-pad"``; see :data:`Order`.
        shrunk_bias: see above.
        shrink: whether windows shrink to small grids.
        relative_bias: whether there is a table of relative biases, ``bias [heads, 2 window - 1, ...]``, by key minus
            query.
        qkv_bias: whether the projection to query, key and value has a bias. That of the keys changes nothing, with or
            without filled tokens; it is kept as a parameter for the checkpoints that have one.
        scale: of the logits; ``(dim / num_heads) ** -0.5`` unless given.
        dropout: after the output projection.
        backend: of the operator.

    Parameters: ``qkv.{weight, bias}`` (rows ordered query, key, value, each by heads), ``project.{weight, bias}``,
    ``bias``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, ...],
        shift: PerAxis = 0,
        *,
        order: Order = "pad-roll",
        shrunk_bias: ShrunkBias = "geometric",
        shrink: bool = True,
        relative_bias: bool = True,
        qkv_bias: bool = True,
        scale: float | None = None,
        dropout: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads={num_heads}; it must divide dim={dim}")
        if order not in get_args(Order):
            raise ValueError(f"order={order!r}; it must be 'pad-roll' or 'roll-pad'")
        if shrunk_bias not in get_args(ShrunkBias):
            raise ValueError(f"shrunk_bias={shrunk_bias!r}; it must be 'geometric' or 'official'")
        Window(window, shift)  # refuses what is impossible
        self.num_heads = num_heads
        self.window = window
        self.shift = shift
        self.order: Order = order
        self.shrunk_bias: ShrunkBias = shrunk_bias
        self.shrink = shrink
        self.scale = (dim // num_heads) ** -0.5 if scale is None else scale
        self.backend = backend
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        table = (num_heads, *(2 * size - 1 for size in window))
        self.bias = nn.Parameter(torch.empty(table)) if relative_bias else None
        self.project = Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        if self.bias is not None:
            nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        grid, dim = tuple(x.shape[1:-1]), x.shape[-1]
        if len(grid) != len(self.window):
            raise ValueError(f"x has {len(grid)} grid axes; the window {self.window} is made for {len(self.window)}")
        window, shift = window_in_use(grid, self.window, self.shift) if self.shrink else (self.window, self.shift)
        constant, offset = None, self.project.bias
        if self.qkv.bias is not None:
            constant = torch.cat([self.qkv.bias[:dim], self.qkv.bias.new_zeros(2 * dim)])
            offset = offset + self.project.weight @ self.qkv.bias[2 * dim :]
        query, key, value = F.linear(x, self.qkv.weight, constant).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        if self.bias is not None and window != self.window and self.shrunk_bias == "official":
            out = self._as_first_tokens(query, key, value, window, shift)
        else:
            table = None if self.bias is None else _central(self.bias, window)
            out = shifted_window_attention(
                query, key, value, window, shift, bias=table, order=self.order, scale=self.scale, backend=self.backend
            )
        return self.dropout(F.linear(out.flatten(-2), self.project.weight, offset))

    def _as_first_tokens(self, query: Tensor, key: Tensor, value: Tensor, window: Grid, shift: PerAxis) -> Tensor:
        """Attention with the biases of the nominal window's first tokens, which are no function of the offset.

        They become channels: the query of the window's token ``p`` carries row ``p`` of the biases, the key of token
        ``q`` a one at place ``q``. That needs filled tokens with a place of their own, so they are there.
        """
        assert self.bias is not None
        grid, tokens = tuple(query.shape[1:-2]), prod(window)
        missing = [-n % size for n, size in zip(grid, window, strict=True)]
        places = torch.from_numpy(_places(tuple(map(sum, zip(grid, missing, strict=True))), window, shift))
        places = places.to(query.device)
        entries = torch.from_numpy(_first_tokens(tokens, self.window)).to(query.device)
        rows = (self.bias.flatten(1)[:, entries] / self.scale).to(query.dtype).movedim(0, 1)  # [query, heads, key]
        query, key, value = (_filled(x, missing) for x in (query, key, value))
        ones = F.one_hot(places, tokens).to(key.dtype).unsqueeze(-2)
        query = torch.cat([query, rows[places].expand(*query.shape[:-1], -1)], -1)
        key = torch.cat([key, ones.expand(*key.shape[:-1], -1)], -1)
        out = fovea.attention(query, key, value, _text(window, shift), scale=self.scale, backend=self.backend)
        for axis, n in enumerate(grid, 1):
            out = out.narrow(axis, 0, n)
        return out

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, window={self.window}, shift={self.shift}, order={self.order}"


class ShiftedWindowBlock(nn.Module):
    """Swin's block: ``x = x + drop(attention(norm1(x))); x = x + drop(mlp(norm2(x)))``, exact GELU.

    Shapes: ``[B, *grid, dim] -> [B, *grid, dim]``.

    Args:
        dim, num_heads, window, shift: of :class:`ShiftedWindowAttention`, as all words in ``attention``.
        mlp_ratio: width of the MLP over ``dim``.
        dropout, drop_path: rates, of elements and of whole branches.
        attention: further words for the attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, ...],
        shift: PerAxis = 0,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        order: Order = "pad-roll",
        shrunk_bias: ShrunkBias = "geometric",
        shrink: bool = True,
        qkv_bias: bool = True,
        scale: float | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = ShiftedWindowAttention(
            dim,
            num_heads,
            window,
            shift,
            order=order,
            shrunk_bias=shrunk_bias,
            shrink=shrink,
            qkv_bias=qkv_bias,
            scale=scale,
            dropout=dropout,
            backend=backend,
        )
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio), dropout=dropout)

    def forward(self, x: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@torch.compiler.assume_constant_result
def _text(window: PerAxis, shift: PerAxis, border: Literal["mask", "zero"] = "mask") -> str:
    return str(Window(window, shift, border))


def _filled(x: Tensor, missing: list[int]) -> Tensor:
    """``[B, *grid, heads, dim]`` with so many zero tokens at the end of each axis."""
    if not any(missing):
        return x
    return F.pad(x, [0, 0, 0, 0, *(side for count in reversed(missing) for side in (0, count))])


def _central(table: Tensor, window: PerAxis) -> Tensor:
    """The biases of offsets that occur in a window smaller than the table's."""
    for axis, count in enumerate(table.shape[1:]):
        size = at_axis(window, axis)
        table = table.narrow(axis + 1, count // 2 + 1 - size, 2 * size - 1)
    return table


@lru_cache(maxsize=256)
def _places(grid: Grid, window: Grid, shift: PerAxis) -> np.ndarray:
    """``[*grid]``: which token of its window, row by row, stands at each coordinate."""
    coordinates = [(np.arange(n) - at_axis(shift, axis)) % window[axis] for axis, n in enumerate(grid)]
    return np.asarray(np.ravel_multi_index(tuple(np.meshgrid(*coordinates, indexing="ij")), window))


@lru_cache(maxsize=64)
def _first_tokens(tokens: int, window: Grid) -> np.ndarray:
    """``[query, key]``: the entry of the flattened table for pairs of the first tokens of the nominal window."""
    places = np.stack(np.unravel_index(np.arange(tokens), window))
    offsets = places[:, None] - places[:, :, None] + np.array(window)[:, None, None] - 1
    return np.asarray(np.ravel_multi_index(tuple(offsets), tuple(2 * size - 1 for size in window)))
