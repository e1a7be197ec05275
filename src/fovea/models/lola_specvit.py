"""LoLA-SpecViT: hyperspectral pixels by their patches (arXiv 2506.17759).

The components of a patch go through 3-D convolutions over spectrum and space; what they find is averaged over the
spectrum, and becomes tokens. Three levels of windowed attention with SwiGLU follow. The linear maps carry low-rank
adapters, which can be trained alone.

The paper and the published code differ; ``LoLASpecViTConfig.variant`` says which one is built.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.models.lola_specvit_config import LoLASpecViTConfig
from fovea.nn import ChannelAttention, DropPath, GridAttention, Linear, rising_rates
from fovea.nn.lora import GatedLoRALinear, LoRALinear, adapters
from fovea.nn.swiglu import SwiGLU
from fovea.patterns import Window

SPECTRAL_KERNELS = (7, 5, 3)
"""Of the 3-D convolutions, along the spectrum; in space they are 3 wide."""


class BandDropout(nn.Module):
    """In training, leave out spectral positions: one draw a sample, channel and position, the same in all of space.

    Shapes: ``[B, C, K, P, P] -> [B, C, K, P, P]``; what stays is scaled, so that the mean is kept.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(
        self, u: Float[Tensor, "batch dim bands rows columns"]
    ) -> Float[Tensor, "batch dim bands rows columns"]:
        if not self.training or self.rate == 0:
            return u
        keep = 1 - self.rate
        return u * u.new_empty(*u.shape[:3], 1, 1).bernoulli_(keep).div_(keep)


class SpectralFrontEnd(nn.Module):
    """Three 3-D convolutions, band dropout, the mean over the spectrum and channel attention.

    Shapes: ``[B, K, P, P] -> [B, P, P, dim]``. Channel attention weighs a channel the same in all bands, so that it may
    follow the mean over them.
    """

    def __init__(self, config: LoLASpecViTConfig) -> None:
        super().__init__()
        widths = (1, *config.front, config.dim)
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(before, after, (kernel, 3, 3), padding=(kernel // 2, 1, 1)), nn.BatchNorm3d(after), nn.SiLU()
            )
            for (before, after), kernel in zip(pairwise(widths), SPECTRAL_KERNELS, strict=True)
        )
        self.dropout = BandDropout(config.band_dropout)
        self.attention = ChannelAttention(config.dim, config.squeeze, bias=False)

    def forward(self, x: Float[Tensor, "batch bands rows columns"]) -> Float[Tensor, "batch rows columns dim"]:
        u = x[:, None]
        for conv in self.convs:
            u = conv(u)
        return self.attention(self.dropout(u).mean(2).movedim(1, -1))


class PatchEmbedding(nn.Module):
    """A convolution of kernel 4 and stride 2 that halves the patch: ``[B, P, P, dim] -> [B, P//2, P//2, dim]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 4, 2, 1)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Float[Tensor, "batch rows columns dim"]) -> Float[Tensor, "batch height width dim"]:
        return F.silu(self.norm(self.conv(x.movedim(-1, 1)))).movedim(1, -1)


class AdaptedMLP(nn.Module):
    """Adapted linear map to ``hidden`` channels, SwiGLU at that width, adapted linear map back."""

    def __init__(self, config: LoLASpecViTConfig, dim: int) -> None:
        super().__init__()
        hidden = int(dim * config.mlp_ratio)
        self.expand = adapted(config, dim, hidden)
        self.gated = SwiGLU(hidden)
        self.contract = adapted(config, hidden, dim)

    def forward(self, x: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens dim"]:
        return self.contract(self.gated(self.expand(x)))


class LocalAttention(nn.Module):
    """Attention inside windows with a relative bias: ``[B, H, W, C] -> [B, H, W, C]``.

    Where the window does not divide the grid, ``variant="paper"`` ends the last windows with the grid. The published
    code fills them up with zeros (of the normalised tokens) whose keys and values, the projection's bias, take their
    share of the softmax: on the grids 7, 4 and 2 of a 15 x 15 patch, the last two windows are mostly filling.
    """

    def __init__(self, config: LoLASpecViTConfig, level: int) -> None:
        super().__init__()
        dim, self.window = config.width(level), config.window_size[level]
        window = (self.window, self.window)
        self.filled = config.variant == "official"
        self.attention = GridAttention(dim, config.num_heads[level], Window(window), bias_grid=window)
        self.attention.qkv = adapted(config, dim, 3 * dim)
        self.attention.project = adapted(config, dim, dim)

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        if not self.filled:
            return self.attention(tokens)
        height, width = tokens.shape[1:3]
        filled = F.pad(tokens, (0, 0, 0, -width % self.window, 0, -height % self.window))
        return self.attention(filled)[:, :height, :width]


class Block(nn.Module):
    """``T = T + drop_path(attention(norm1(T))); T = T + drop_path(mlp(norm2(T)))``, on ``[B, H, W, C]``."""

    def __init__(self, config: LoLASpecViTConfig, level: int, drop_path: float) -> None:
        super().__init__()
        dim = config.width(level)
        self.norm1 = nn.LayerNorm(dim) if config.local_attention else None
        self.attention = LocalAttention(config, level) if config.local_attention else None
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = AdaptedMLP(config, dim)

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        if self.attention is not None and self.norm1 is not None:
            tokens = tokens + self.drop_path(self.attention(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class Reduction(nn.Module):
    """Half the grid, twice the channels: ``[B, H, W, C] -> [B, ceil(H/2), ceil(W/2), 2 C]``.

    Depthwise convolution, SiLU, channel attention, 1x1 convolution, batch normalisation, convolution of stride 2.
    """

    def __init__(self, dim: int, squeeze: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.attention = ChannelAttention(dim, squeeze, bias=False)
        self.widen = nn.Conv2d(dim, 2 * dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(2 * dim)
        self.reduce = nn.Conv2d(2 * dim, 2 * dim, 3, 2, 1, bias=False)

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns wide"]:
        u = F.silu(self.depthwise(tokens.movedim(-1, 1))).movedim(1, -1)
        return self.reduce(self.norm(self.widen(self.attention(u).movedim(-1, 1)))).movedim(1, -1)


class Level(nn.Module):
    """Blocks on one grid, and the reduction to the next (none after the last)."""

    def __init__(self, config: LoLASpecViTConfig, level: int, drop_paths: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, level, rate) for rate in drop_paths)
        last = level == len(config.depths) - 1
        self.reduction = None if last else Reduction(config.width(level), config.squeeze)

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns wide"]:
        for block in self.blocks:
            tokens = block(tokens)
        return tokens if self.reduction is None else self.reduction(tokens)


class LoLASpecViT(nn.Module):
    """The whole network: patches ``[B, in_channels, P, P]`` to logits ``[B, num_classes]`` of their middle pixels.

    What goes in is standardised; see ``fovea.data.hyperspectral.features``. (The published code standardises each
    channel of each patch.)
    """

    def __init__(self, config: LoLASpecViTConfig) -> None:
        super().__init__()
        self.config = config
        self.front = SpectralFrontEnd(config)
        self.embedding = PatchEmbedding(config.dim)
        self.position = nn.Parameter(torch.empty(1, config.grid, config.grid, config.dim))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.dropout = nn.Dropout(config.drop_rate)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.levels = nn.ModuleList(Level(config, level, drop_paths) for level, drop_paths in enumerate(rates))
        last = config.width(len(config.depths) - 1)
        self.norm = nn.LayerNorm(last)
        self.head = adapted(config, last, config.num_classes, gated=False)
        if config.variant == "official":
            for parameter in adapters(self).values():
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Float[Tensor, "batch in_channels rows columns"]) -> Float[Tensor, "batch num_classes"]:
        return self.head(self.features(x).mean((1, 2)))

    def features(self, x: Float[Tensor, "batch in_channels rows columns"]) -> Float[Tensor, "batch height width dim"]:
        """Normalised tokens of the last level."""
        config, side = self.config, self.config.spatial_size
        if tuple(x.shape[1:]) != (config.in_channels, side, side):
            raise ValueError(
                f"x has shape {tuple(x.shape)}; it must be [batch, {config.in_channels}, {side}, {side}]: "
                "in_channels components of a patch of spatial_size pixels a side"
            )
        tokens = self.dropout(self.embedding(self.front(x)) + self.position)
        for level in self.levels:
            tokens = level(tokens)
        return self.norm(tokens)


class SpectralCNN(nn.Module):
    """The front end alone and a linear head on the middle pixel: what the transformer is compared with.

    ``[B, in_channels, P, P] -> [B, num_classes]``. The three convolutions see 7 x 7 pixels around the middle one.
    """

    def __init__(self, config: LoLASpecViTConfig) -> None:
        super().__init__()
        self.config = config
        self.front = SpectralFrontEnd(config)
        self.head = Linear(config.dim, config.num_classes)

    def forward(self, x: Float[Tensor, "batch in_channels rows columns"]) -> Float[Tensor, "batch num_classes"]:
        middle = self.config.spatial_size // 2
        return self.head(self.front(x)[:, middle, middle])


def adapted(config: LoLASpecViTConfig, inputs: int, outputs: int, *, gated: bool = True) -> Linear:
    """A linear map with the adapter that the configuration names; the head's is never gated."""
    if config.adapter == "none":
        return Linear(inputs, outputs)
    kind = GatedLoRALinear if config.adapter == "gated" and gated else LoRALinear
    return kind(inputs, outputs, rank=config.r, alpha=config.lora_alpha)


def freeze_all_but_adapters(network: nn.Module, *, head: bool = False) -> nn.Module:
    """Let only the adapters learn (and the ``head``, which a new scene's classes need); returns the network.

    Batch normalisations in training mode still follow the data, as in the published code.

    Raises:
        ValueError: the network has no adapters.
    """
    found = adapters(network)
    if not found:
        raise ValueError(f"{type(network).__name__} has no adapters to train; its lora is 'none'")
    network.requires_grad_(False)
    for parameter in found.values():
        parameter.requires_grad_(True)
    if head and isinstance(network, LoLASpecViT):
        network.head.requires_grad_(True)
    return network
