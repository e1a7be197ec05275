"""A plain three-dimensional U-Net (arXiv 1606.06650), what networks for volumes are compared with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.models.volume_unet_config import VolumeUNetConfig
from fovea.nn.instance_norm import instance_norm_
from fovea.nn.residual_convolution import SLOPE


class DoubleConvolution(nn.Module):
    """Convolution 3 x 3 x 3, instance norm, leaky ReLU, twice: ``[B, inputs, *size] -> [B, outputs, *size]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm_(self.conv2(instance_norm_(self.conv1(x), slope=SLOPE)), slope=SLOPE)


class VolumeUNet(nn.Module):
    """``[B, in_channels, *size] -> [B, out_channels, *size]``, logits; any size, filled up with zeros and cropped."""

    def __init__(self, config: VolumeUNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**level for level in range(config.levels)]
        self.down = nn.ModuleList(map(DoubleConvolution, [config.in_channels, *widths[:-1]], widths))
        self.enlarge = nn.ModuleList(nn.ConvTranspose3d(2 * w, w, 2, 2, bias=False) for w in reversed(widths[:-1]))
        self.up = nn.ModuleList(DoubleConvolution(2 * w, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv3d(config.width, config.out_channels, 1)

    def forward(self, x: Float[Tensor, "batch in_channels *size"]) -> Float[Tensor, "batch out_channels *size"]:
        size = tuple(x.shape[2:])
        missing = [-n % 2 ** (self.config.levels - 1) for n in size]
        x = F.pad(x, [side for count in reversed(missing) for side in (0, count)])
        x = x.contiguous(memory_format=torch.channels_last_3d)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool3d(x, 2))
            skips.append(x)
        skips.pop()
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            x = block(torch.cat([enlarge(x), skips.pop()], 1))
        return self.head(x)[..., : size[0], : size[1], : size[2]]
