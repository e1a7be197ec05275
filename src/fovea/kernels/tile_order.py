"""Tokens kept tile by tile through a model, for patterns that fall on whole tiles.

Where every pair of tiles is seen whole or not at all (GNA, arXiv 2504.16922, section 3: windows and strides of whole
tiles), attention on a grid is attention of blocks along the sequence of its tiles: no box is gathered and nothing is
masked. Everything that treats tokens alike (projections, norms, MLPs) works on that sequence as on the grid, so that
tokens are permuted once before a model's layers and once behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from fovea.patterns import Chosen, GridPattern, Pattern, parse
from fovea.patterns.order import Permutation
from fovea.patterns.pattern import Grid
from fovea.patterns.states import PARTIAL, block_states, dilation_of


@dataclass(frozen=True)
class TileOrder:
    """The tokens of a grid as a sequence of tiles.

    Attributes:
        order: where each token is in the sequence.
        pattern: what the grid's pattern is along the sequence; goes to :func:`fovea.attention` with tensors
            ``[batch, tokens, heads, head_dim]``.

    >>> import torch
    >>> order = TileOrder.of("neighborhood:window=6,stride=2", (8, 8), (2, 2))
    >>> order.sequence(torch.arange(64).view(1, 8, 8))[0, :6]
    tensor([0, 1, 8, 9, 2, 3])
    """

    order: Permutation
    pattern: Chosen

    @classmethod
    def of(cls, pattern: Pattern | str, grid: Grid, tile: Grid) -> TileOrder:
        """The order by tiles of so many tokens on each axis (of a dilation group, where the pattern has a step).

        Raises ``ValueError`` where tiles do not fill the grid, or where the pattern sees a part of a tile.
        """
        pattern = parse(pattern) if isinstance(pattern, str) else pattern
        if not isinstance(pattern, GridPattern):
            raise ValueError(f"pattern={pattern}; it must be a grid pattern")
        order = Permutation(grid, tile, dilation_of(pattern, grid, grid))
        if order.length != prod(order.grid):
            raise ValueError(
                f"tile={order.tile}; tiles, times the pattern's dilation {order.dilation}, must fill the grid "
                f"{order.grid} without a rest"
            )
        if any(padding != (0, 0) for padding in pattern.padding(order.grid, order.grid)):
            raise ValueError(f"pattern={pattern}; it adds zero keys, which belong to no tile")
        states = block_states(pattern, order.grid, query_tile=order.tile, key_tile=order.tile)
        parts, visited = int((states == PARTIAL).sum()), int((states > 0).sum())
        if parts:
            raise ValueError(
                f"tile={order.tile}; {pattern} on {order.grid} sees only a part of {parts} of the {visited} pairs of "
                "tiles that it visits; it must see all of each"
            )
        return cls(order, Chosen.where(prod(order.tile), states > 0))

    def sequence(self, tokens: Tensor) -> Tensor:
        """``[batch, *grid, ...]`` in the order of the tiles: ``[batch, tokens, ...]``."""
        axes = len(self.order.grid)
        if tuple(tokens.shape[1 : 1 + axes]) != self.order.grid:
            raise ValueError(f"tokens has shape {tuple(tokens.shape)}; it must be [batch, {self.order.grid}, ...]")
        return tokens.flatten(1, axes).index_select(1, _place(self.order, tokens.device, False))

    def grid(self, sequence: Tensor) -> Tensor:
        """The inverse of :meth:`sequence`."""
        if sequence.ndim < 2 or sequence.shape[1] != self.order.length:
            raise ValueError(
                f"sequence has shape {tuple(sequence.shape)}; it must be [batch, {self.order.length}, ...]"
            )
        return sequence.index_select(1, _place(self.order, sequence.device, True)).unflatten(1, self.order.grid)


@lru_cache(maxsize=64)
def _place(order: Permutation, device: torch.device, inverse: bool) -> Tensor:
    return torch.from_numpy((order.inverse if inverse else order.index.ravel()).copy()).to(device)
