"""The discriminator of Real-HAT: a U-Net under spectral norm judging every pixel (arXiv 2107.10833, section 3.3)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class UNetDiscriminator(nn.Module):
    """``[B, in_chans, H, W] -> [B, 1, H, W]``: for each pixel the logit of its being real.

    Three halvings and three bilinear doublings, each doubling added to what the halving left at that size. All
    convolutions but the first and the last are divided by their largest singular value (in evaluation, by the estimate
    that training left).

    Args:
        in_chans: channels of the image.
        num_feat: channels after the first convolution, n.
    """

    multiple = 8
    """Sides of the image must be multiples of it."""

    def __init__(self, in_chans: int = 3, num_feat: int = 64) -> None:
        super().__init__()
        n = num_feat
        self.first = nn.Conv2d(in_chans, n, 3, 1, 1)
        self.down = nn.ModuleList(_normed(inputs, 2 * inputs, kernel=4, stride=2) for inputs in (n, 2 * n, 4 * n))
        self.up = nn.ModuleList(_normed(2 * outputs, outputs) for outputs in (4 * n, 2 * n, n))
        self.refine = nn.ModuleList(_normed(n, n) for _ in range(2))
        self.last = nn.Conv2d(n, 1, 3, 1, 1)

    def forward(self, x: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch 1 height width"]:
        if x.shape[-2] % self.multiple or x.shape[-1] % self.multiple:
            raise ValueError(f"x has {tuple(x.shape[-2:])} pixels; both sides must be multiples of {self.multiple}")
        x = F.leaky_relu(self.first(x), 0.2)
        skips = []
        for conv in self.down:
            skips.append(x)
            x = F.leaky_relu(conv(x), 0.2)
        for conv in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), 0.2) + skips.pop()
        for conv in self.refine:
            x = F.leaky_relu(conv(x), 0.2)
        return self.last(x)


def _normed(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False))
