"""Patch merging: neighbouring tokens joined into one of a grid half as fine (Swin, arXiv 2103.14030, section 3.1)."""

from __future__ import annotations

from itertools import product
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.nn.linear import Linear

MergingOrder = Literal["legacy", "merging", "mergingv2"]
"""In which order a token's neighbours are laid side by side; weights trained with one order are useless with another.

On 2 axes all three are that of Swin: (row, column) = 00, 10, 01, 11. On 3 axes, the names of MONAI:

* ``legacy``: 000, 100, 010, 001, 101, 010, 001, 111. Two corners come twice, 110 and 011 never: a mistake of MONAI up
  to 1.4 on which all published Swin UNETR checkpoints were trained.
* ``merging``: 000, 100, 010, 001, 110, 101, 011, 111, MONAI from 1.5 on.
* ``mergingv2``: row by row, 000, 001, 010, 011, 100, 101, 110, 111.
"""

CORNERS: dict[MergingOrder, tuple[tuple[int, int, int], ...]] = {
    "legacy": ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)),
    "merging": ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)),
    "mergingv2": tuple(product((0, 1), repeat=3)),  # type: ignore[dict-item]
}


class PatchMerging(nn.Module):
    """Halve every axis: the tokens of a 2 x 2 (x 2) cell side by side, LayerNorm, linear map without bias.

    An odd axis gets one zero token at its end, before the normalisation.

    Shapes: ``[B, *grid, dim] -> [B, *ceil(grid / 2), out_dim]``.

    Args:
        dim: channels.
        axes: number of grid axes, 2 or 3.
        order: of the cell's tokens; see :data:`MergingOrder`.
        out_dim: ``2 dim`` unless given.

    Parameters: ``norm.{weight, bias}`` of ``2 ** axes * dim`` channels, ``reduce.weight``.
    """

    def __init__(self, dim: int, *, axes: int = 2, order: MergingOrder = "merging", out_dim: int | None = None) -> None:
        super().__init__()
        if axes not in (2, 3):
            raise ValueError(f"axes={axes}; it must be 2 or 3")
        if order not in get_args(MergingOrder):
            raise ValueError(f"order={order!r}; it must be one of {', '.join(get_args(MergingOrder))}")
        self.corners = CORNERS[order] if axes == 3 else ((0, 0), (1, 0), (0, 1), (1, 1))
        self.order = order
        self.norm = nn.LayerNorm(2**axes * dim)
        self.reduce = Linear(2**axes * dim, 2 * dim if out_dim is None else out_dim, bias=False)

    def forward(self, x: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *_ out_dim"]:
        grid = x.shape[1:-1]
        if len(grid) != len(self.corners[0]):
            raise ValueError(f"x has {len(grid)} grid axes; this layer is made for {len(self.corners[0])}")
        if any(n % 2 for n in grid):
            x = F.pad(x, [0, 0, *(side for n in reversed(grid) for side in (0, n % 2))])
        parts = [x[(slice(None), *(slice(start, None, 2) for start in corner))] for corner in self.corners]
        return self.reduce(self.norm(torch.cat(parts, -1)))

    def extra_repr(self) -> str:
        return f"order={self.order}"
