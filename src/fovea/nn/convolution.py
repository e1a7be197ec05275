"""Convolution of token grids whose channels stand last."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class GridConv(nn.Module):
    """A convolution over a grid of 1 to 3 axes: ``[B, *grid, inputs] -> [B, *grid', outputs]``.

    Args:
        inputs, outputs: channels.
        kernel: width of the kernel on every axis; odd kernels keep the grid at ``stride`` 1 (zero padding).
        axes: number of grid axes.
        stride, bias: as in ``nn.Conv2d``.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, axes: int = 2, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        if not 1 <= axes <= 3:
            raise ValueError(f"axes={axes}; it must be 1, 2 or 3")
        self.conv = CONVOLUTIONS[axes - 1](inputs, outputs, kernel, stride, kernel // 2, bias=bias)

    def forward(self, x: Float[Tensor, "batch *grid inputs"]) -> Float[Tensor, "batch *_ outputs"]:
        return self.conv(x.movedim(-1, 1)).movedim(1, -1)
