"""The convolution blocks of U-shaped segmentation networks, on grids of 2 and 3 axes (UNETR, Swin UNETR, nnU-Net).

Feature maps are channels first, ``[B, C, *grid]``, and lie in memory with channels last: there the convolutions and
normalisations of the CPU are quickest, and token grids ``[B, *grid, C]`` become feature maps without a copy.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.nn.instance_norm import instance_norm_

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
CONVOLVE = {2: F.conv2d, 3: F.conv3d}
SPREAD = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}

SLOPE = 0.01
"""Of the leaky ReLU below zero."""


class ResidualConvBlock(nn.Module):
    """``lrelu(norm(conv3(lrelu(norm(conv3(x))))) + r)``; ``r`` is ``x``, or ``norm(conv1(x))`` between widths.

    Convolutions without biases, instance norms without parameters, leaky ReLU of slope 0.01.

    Shapes: ``[B, inputs, *grid] -> [B, outputs, *grid]``.

    Parameters: ``conv1.weight``, ``conv2.weight`` and, where the widths differ, ``shortcut.weight``.
    """

    def __init__(self, inputs: int, outputs: int, *, axes: int = 3) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[axes]
        self.conv1 = convolution(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = convolution(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None if inputs == outputs else convolution(inputs, outputs, 1, bias=False)

    def forward(self, x: Float[Tensor, "batch inputs *grid"]) -> Float[Tensor, "batch outputs *grid"]:
        return self.finish(self.conv1(x), x if self.shortcut is None else instance_norm_(self.shortcut(x)))

    def finish(self, first: Tensor, residual: Tensor) -> Tensor:
        """The block from the output of its first convolution, which is overwritten, and what is added at its end."""
        first = instance_norm_(first, slope=SLOPE)
        return instance_norm_(self.conv2(first), residual=residual, slope=SLOPE)


class ResidualUpBlock(nn.Module):
    """One step up: double the grid, put the skip beside it, a residual block from both.

    ``block(cat([enlarge(x), skip]))`` where ``enlarge`` is a transposed convolution of kernel and stride 2 without
    bias. On large grids neither the enlarged map nor the concatenation is made: a convolution of an enlarged map is
    itself one transposed convolution, of kernel 4 and stride 2, whose weights are those two convolved. It takes 8
    products where the convolution takes 27, and is exact at the borders too, as zeros enlarge to zeros.

    Shapes: ``[B, inputs, *grid]`` and ``[B, outputs, *2 grid]`` to ``[B, outputs, *2 grid]``.

    Parameters: ``enlarge.weight`` and those of ``block``.
    """

    def __init__(self, inputs: int, outputs: int, *, axes: int = 3) -> None:
        super().__init__()
        self.axes = axes
        self.enlarge = TRANSPOSED[axes](inputs, outputs, 2, 2, bias=False)
        self.block = ResidualConvBlock(2 * outputs, outputs, axes=axes)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if not self.composes(x):
            return self.block(torch.cat([self.enlarge(x), skip], 1))
        block, axes, half = self.block, self.axes, skip.shape[1]
        assert block.shortcut is not None
        enlarge, convolve, spread = self.enlarge.weight, CONVOLVE[axes], SPREAD[axes]
        kernel = convolve(enlarge, block.conv1.weight[:, :half], padding=2)
        first = convolve(skip, block.conv1.weight[:, half:], padding=1)
        first.add_(spread(x, kernel, stride=2, padding=1))
        kernel = convolve(enlarge, block.shortcut.weight[:, :half])
        residual = convolve(skip, block.shortcut.weight[:, half:])
        residual.add_(spread(x, kernel, stride=2))
        return block.finish(first, instance_norm_(residual))

    def composes(self, x: Tensor) -> bool:
        """Whether convolving the weights costs less than it saves on a grid as large as that of ``x``."""
        inputs, outputs = self.enlarge.weight.shape[:2]
        voxels = x.numel() // inputs * 2**self.axes
        saved = (3**self.axes * outputs + inputs - 2**self.axes * inputs) * outputs * voxels
        return saved > 2 * 6**self.axes * inputs * outputs * outputs
