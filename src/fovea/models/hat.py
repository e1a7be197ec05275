"""HAT: Hybrid Attention Transformer for image restoration (arXiv 2205.04437 and 2309.05239, section 3).

An image becomes tokens, one a pixel. Groups (RHAG) of hybrid attention blocks (HAB), which run window attention beside
a channel attention block (CAB), end in an overlapping cross-attention block (OCAB). What the image was before the
groups is added again, and sub-pixel convolutions enlarge it.

Tokens stay a grid with channels last, ``[B, H, W, C]``, from the first convolution to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fovea.models.hat_config import HATConfig
from fovea.nn import MLP, ChannelAttentionBlock, DropPath, GridAttention, GridConv, rising_rates
from fovea.patterns import Halo, Window

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Of DIV2K's training images."""

UPSAMPLER_CHANNELS = 64


class HybridAttentionBlock(nn.Module):
    """HAB (section 3.2): window attention and, beside it, a channel attention block of weight alpha; then an MLP.

    ``N = norm1(T); T = T + drop_path(attention(N)) + alpha CAB(N); T = T + drop_path(mlp(norm2(T)))``.
    The channel attention block reads the normalised tokens and is never dropped.

    Shapes: ``[B, H, W, C] -> [B, H, W, C]``.
    """

    def __init__(self, config: HATConfig, heads: int, *, shifted: bool, drop_path: float) -> None:
        super().__init__()
        dim, window = config.embed_dim, min(config.window_size, *config.grid)
        shift = config.window_size // 2 if shifted and window < min(config.grid) else 0
        self.conv_scale = config.conv_scale
        self.norm1 = nn.LayerNorm(dim)
        self.attention = GridAttention(
            dim,
            heads,
            Window(window, shift),
            bias_grid=(window, window),
            qkv_bias=config.qkv_bias,
            scale=config.qk_scale,
            dropout=config.drop_rate,
        )
        self.cab = ChannelAttentionBlock(dim, config.compress_ratio, config.squeeze_factor) if config.cab else None
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * config.mlp_ratio), dropout=config.drop_rate)

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        normed = self.norm1(tokens)
        tokens = tokens + self.drop_path(self.attention(normed))
        if self.cab is not None:
            tokens = tokens + self.conv_scale * self.cab(normed)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class OverlappingCrossAttentionBlock(nn.Module):
    """OCAB (section 3.3): the queries of a window read the keys of the window widened on all sides; then an MLP.

    Keys beyond the image are zeros and are *not* masked: they take their share of the softmax, as in the official code.

    Shapes: ``[B, H, W, C] -> [B, H, W, C]``.
    """

    def __init__(self, config: HATConfig, heads: int) -> None:
        super().__init__()
        dim, window = config.embed_dim, config.window_size
        self.norm1 = nn.LayerNorm(dim)
        self.attention = GridAttention(
            dim,
            heads,
            Halo(window, config.overlap // 2, "zero"),
            bias_grid=(window, window),
            qkv_bias=config.qkv_bias,
            scale=config.qk_scale,
        )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * config.mlp_ratio))

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ResidualHybridAttentionGroup(nn.Module):
    """RHAG (section 3.1): hybrid attention blocks, the overlapping cross-attention block, a convolution, a skip.

    Shapes: ``[B, H, W, C] -> [B, H, W, C]``.
    """

    def __init__(self, config: HATConfig, heads: int, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            HybridAttentionBlock(config, heads, shifted=bool(i % 2), drop_path=rate)
            for i, rate in enumerate(drop_paths)
        )
        self.overlap = OverlappingCrossAttentionBlock(config, heads) if config.ocab else None
        dim = config.embed_dim
        self.conv = GridConv(dim, dim, 3) if config.resi_connection == "1conv" else nn.Identity()
        self.use_checkpoint = config.use_checkpoint

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        deep = tokens
        for block in self.blocks:
            deep = _run(block, deep, self.use_checkpoint)
        if self.overlap is not None:
            deep = _run(self.overlap, deep, self.use_checkpoint)
        return tokens + self.conv(deep)


def _run(block: Callable[[Tensor], Tensor], tokens: Tensor, recompute: bool) -> Tensor:
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, tokens, use_reentrant=False)  # type: ignore[return-value]
    return block(tokens)


class SubPixelUpsampler(nn.Module):
    """Enlarge by convolutions to ``r * r`` times the channels, each shuffled into ``r x r`` pixels (arXiv 1609.05158).

    ``[B, H, W, C] -> [B, H scale, W scale, C]``; scale 3 in one step, powers of two in steps of 2, 1 in none.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        factors = [3] if scale == 3 else [2] * int(log2(scale))
        self.convs = nn.ModuleList(GridConv(channels, channels * r * r, 3) for r in factors)
        self.factors = factors

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns dim"]:
        for factor, conv in zip(self.factors, self.convs, strict=True):
            x = F.pixel_shuffle(conv(x).movedim(-1, 1), factor).movedim(1, -1)
        return x


class HAT(nn.Module):
    """The whole network: ``[B, in_chans, H, W] -> [B, in_chans, H upscale, W upscale]``, images in [0, 1].

    ``H`` and ``W`` must be multiples of ``multiple``, the window; ``fovea.tasks.restoration.inference.restore`` takes
    images of any size.

    Attributes:
        scale: how much larger the output is.
        multiple: what sizes must be multiples of.
    """

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = config.upscale
        self.multiple = config.window_size
        dim, channels = config.embed_dim, config.in_chans
        mean = torch.tensor(RGB_MEAN if channels == 3 else (0.0,) * channels).view(-1, 1, 1)
        self.mean: Tensor
        self.register_buffer("mean", mean, persistent=False)

        self.conv_first = GridConv(channels, dim, 3)
        self.norm_first = nn.LayerNorm(dim) if config.patch_norm else nn.Identity()
        self.position = nn.Parameter(torch.empty(1, *config.grid, dim)) if config.ape else None
        if self.position is not None:
            nn.init.trunc_normal_(self.position, std=0.02)
        self.dropout = nn.Dropout(config.drop_rate)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.groups = nn.ModuleList(
            ResidualHybridAttentionGroup(config, heads, group_rates)
            for heads, group_rates in zip(config.num_heads, rates, strict=True)
        )
        self.norm_last = nn.LayerNorm(dim)
        self.conv_after_groups = GridConv(dim, dim, 3)

        self.conv_before_upsampler = GridConv(dim, UPSAMPLER_CHANNELS, 3)
        self.upsampler = SubPixelUpsampler(UPSAMPLER_CHANNELS, config.upscale)
        self.conv_last = GridConv(UPSAMPLER_CHANNELS, channels, 3)

    def forward(
        self, x: Float[Tensor, "batch in_chans height width"]
    ) -> Float[Tensor, "batch in_chans {self.config.upscale}*height {self.config.upscale}*width"]:
        height, width = x.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"x has {height} x {width} pixels; both must be multiples of the window, {self.multiple} "
                "(fovea.tasks.restoration.inference.restore takes any size)"
            )
        mean = self.mean.to(x.dtype)
        image = (x - mean) * self.config.img_range
        restored = self.reconstruct(self.features(image.movedim(1, -1))).movedim(-1, 1)
        if self.scale == 1 and self.config.image_residual:
            restored = restored + image
        return restored / self.config.img_range + mean

    def features(self, image: Tensor) -> Tensor:
        """Shallow plus deep features: ``[B, H, W, in_chans] -> [B, H, W, C]``."""
        shallow = self.conv_first(image)
        tokens = self.norm_first(shallow)
        if self.position is not None:
            if tokens.shape[1:3] != self.position.shape[1:3]:
                raise ValueError(
                    f"x has {tuple(tokens.shape[1:3])} pixels; with ape=True it must have {self.config.grid}"
                )
            tokens = tokens + self.position
        tokens = self.dropout(tokens)
        for group in self.groups:
            tokens = group(tokens)
        return shallow + self.conv_after_groups(self.norm_last(tokens))

    def reconstruct(self, features: Tensor) -> Tensor:
        """``[B, H, W, C] -> [B, H upscale, W upscale, in_chans]``."""
        return self.conv_last(self.upsampler(F.leaky_relu(self.conv_before_upsampler(features))))
