"""A plain two-dimensional U-Net (arXiv 1505.04597), what segmentation networks are compared with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.models.unet_config import UNetConfig
from fovea.nn.norm import Norm, channel_norm


class DoubleConvolution(nn.Sequential):
    """Convolution 3x3, norm, ReLU, twice: ``[B, inputs, H, W] -> [B, outputs, H, W]``."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            channel_norm(norm, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            channel_norm(norm, outputs),
            nn.ReLU(),
        )


class UpBlock(nn.Module):
    """One step of a U-Net's way up: double the grid, concatenate the skip, two convolutions.

    Shapes: ``[B, inputs, H, W]`` and ``[B, skip, 2H, 2W]`` to ``[B, outputs, 2H, 2W]``; ``skip`` may be 0 for none.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(inputs, outputs, 2, 2)
        self.convolutions = DoubleConvolution(outputs + skip, outputs, norm)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.enlarge(x)
        return self.convolutions(x if skip is None else torch.cat([x, skip], 1))


class UNet(nn.Module):
    """``[B, in_chans, H, W] -> [B, num_classes, H, W]`` logits; any size, padded with zeros inside and cropped."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**level for level in range(config.levels)]
        self.down = nn.ModuleList(
            DoubleConvolution(inputs, outputs, config.norm)
            for inputs, outputs in zip([config.in_chans, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(UpBlock(2 * width, width, width, config.norm) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(config.width, config.num_classes, 1)

    def forward(
        self, x: Float[Tensor, "batch in_chans height width"]
    ) -> Float[Tensor, "batch num_classes height width"]:
        height, width = x.shape[-2:]
        multiple = 2 ** (self.config.levels - 1)
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple))
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = block(x, skips.pop())
        return self.head(x)[..., :height, :width]
