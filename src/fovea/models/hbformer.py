"""HBFormer: a Swin encoder and a decoder of dynamic dilated convolutions for slices (arXiv 2512.03597).

Grey slices become three channels. The encoder makes features at strides 4, 8, 16 and 32. Each step of the decoder
(MFF) doubles the grid, joins an encoder feature, runs a residual block (LRD) and a mixture of dilated convolutions
(Med-DSPP). The features of the first three stages are projected and enlarged, so that each joins one level finer than
where it was made; those of the third also join as they are: the bridge.

Feature maps are channels-first, ``[B, C, H, W]``. Where the paper is silent, the official code counts.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.models.hbformer_config import HBFormerConfig
from fovea.models.swin import SwinEncoder
from fovea.models.unet import UpBlock
from fovea.nn.dilated_mixture import DilatedMixture
from fovea.nn.norm import Norm, channel_norm

SLOPE = 0.01
"""Of the leaky ReLUs."""


def three_channels(
    slices: Float[Tensor, "*batch height width"],
) -> Float[Tensor, "*batch 3 height width"]:
    """What the network is given of grey slices in [0, 1]: as they are, brightened by 1.2 and cut at 1, and averaged.

    The average is over 3 x 3 pixels, of which those outside count as zeros, so it darkens towards the border.
    """
    mean = F.avg_pool2d(slices.flatten(0, -3)[:, None] if slices.ndim > 2 else slices[None, None], 3, 1, 1)
    return torch.stack([slices, (1.2 * slices).clamp(0, 1), mean.reshape(slices.shape)], -3)


class ResidualBlock(nn.Module):
    """LRD: ``LReLU(norm(conv1x1(LReLU(norm(conv3x3(z))))) + conv1x1(z))``, convolutions without bias.

    Shapes: ``[B, inputs, H, W] -> [B, outputs, H, W]``.
    """

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = channel_norm(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.norm2 = channel_norm(norm, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, z: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs height width"]:
        a = F.leaky_relu(self.norm1(self.conv1(z)), SLOPE)
        return F.leaky_relu(self.norm2(self.conv2(a)) + self.skip(z), SLOPE)


class FusionBlock(nn.Module):
    """MFF: double the grid, join the skip, residual block, mixture of dilated convolutions, ReLU, and only then norm.

    Shapes: ``[B, 2 dim, H, W]`` and a skip ``[B, dim, 2H, 2W]`` to ``[B, dim, 2H, 2W]``.
    """

    def __init__(self, dim: int, config: HBFormerConfig) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(2 * dim, dim, 2, 2)
        self.residual = ResidualBlock(2 * dim, dim, config.norm)
        self.mixture = DilatedMixture(dim, dilations=config.dilations, experts=config.experts, norm=config.norm)
        self.norm = channel_norm(config.norm, dim)

    def forward(self, x: Float[Tensor, "batch channels height width"], skip: Tensor) -> Tensor:
        z = self.residual(torch.cat([self.enlarge(x), skip], 1))
        return self.norm(F.relu(self.mixture(z)))


class BridgeDecoder(nn.Module):
    """The four fusion blocks with their skips; see the module's text. ``skips="natural"`` leaves the bridge out."""

    def __init__(self, config: HBFormerConfig) -> None:
        super().__init__()
        n = config.feature_size
        self.bridged = config.skips == "finer"
        to = (n, 2 * n, 4 * n)
        given = (2 * n, 4 * n, 8 * n) if self.bridged else (2 * n, 2 * n, 4 * n)
        self.project = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(given, to, strict=True))
        self.fuse = nn.ModuleList(FusionBlock(dim * n, config) for dim in (1, 2, 4, 8))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features at strides 4, 8, 16, 32 to those at strides 2, 4, 8, 16."""
        c1, c2, c3, c4 = features
        project1, project2, project3 = self.project
        if self.bridged:
            skips = [_doubled(project1(c1)), _doubled(project2(c2)), _doubled(project3(c3)), c3]
        else:
            skips = [_doubled(project1(c1)), project2(c1), project3(c2), c3]
        d4 = self.fuse[3](c4, skips[3])
        d3 = self.fuse[2](d4, skips[2])
        d2 = self.fuse[1](d3, skips[1])
        return [self.fuse[0](d2, skips[0]), d2, d3, d4]


class PlainDecoder(nn.Module):
    """A U-Net's way up over the same features, natural skips, none at the finest level."""

    def __init__(self, config: HBFormerConfig) -> None:
        super().__init__()
        n = config.feature_size
        self.steps = nn.ModuleList(
            UpBlock(2 * dim * n, dim * n if dim > 1 else 0, dim * n, config.norm) for dim in (1, 2, 4, 8)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features at strides 4, 8, 16, 32 to those at strides 2, 4, 8, 16."""
        c1, c2, c3, c4 = features
        d4 = self.steps[3](c4, c3)
        d3 = self.steps[2](d4, c2)
        d2 = self.steps[1](d3, c1)
        return [self.steps[0](d2), d2, d3, d4]


class HBFormer(nn.Module):
    """``[B, in_chans, H, W] -> [B, num_classes, H, W]``: logits of every pixel's classes.

    Any size from ``multiple`` pixels a side: the image is padded with zeros at the right and bottom and the logits are
    cropped.

    Attributes:
        multiple: sides that are multiples of it need no padding.
    """

    def __init__(self, config: HBFormerConfig) -> None:
        super().__init__()
        self.config = config
        n = config.feature_size
        self.multiple = config.encoder.multiple
        self.project = nn.Conv2d(config.in_chans, config.in_chans, 1)
        self.encoder = SwinEncoder(config.encoder)
        self.decoder = BridgeDecoder(config) if config.decoder == "mff" else PlainDecoder(config)
        self.enlarge = nn.ConvTranspose2d(n, n, 4, 2, 1, bias=False)
        self.head = nn.Conv2d(n, config.num_classes, 1)

    def forward(
        self, x: Float[Tensor, "batch in_chans height width"]
    ) -> Float[Tensor, "batch num_classes height width"]:
        height, width = x.shape[-2:]
        if min(height, width) < self.multiple:
            raise ValueError(f"x has {height} x {width} pixels; both must be at least {self.multiple}")
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        finest = self.decoder(self.encoder(self.project(x)))[0]
        return self.head(self.enlarge(finest))[..., :height, :width]


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
