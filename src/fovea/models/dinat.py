"""NAT and DiNAT: hierarchical backbones of (dilated) neighborhood attention (arXiv 2204.07143 and 2209.15001).

Two strided convolutions make tokens of 4 x 4 pixels. Each of the levels runs its layers and then halves the grid and
doubles the channels. Tokens stay a grid with channels last, ``[B, H, W, C]``. DiNAT_s, in the shape of Swin, and the
isotropic networks, in the shape of ViT, differ in how tokens are made and joined.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.models.dinat_config import DiNATConfig
from fovea.nn import MLP, DropPath, GridConv, Linear, NeighborhoodAttention, rising_rates


class ConvTokenizer(nn.Module):
    """``[B, H, W, in_chans] -> [B, ceil(H / 4), ceil(W / 4), dim]``: two convolutions of stride 2, then LayerNorm."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.first = GridConv(in_chans, dim // 2, 3, stride=2)
        self.second = GridConv(dim // 2, dim, 3, stride=2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Float[Tensor, "batch height width in_chans"]) -> Float[Tensor, "batch rows columns dim"]:
        return self.norm(self.second(self.first(image)))


class ConvDownsampler(nn.Module):
    """``[B, H, W, dim] -> [B, ceil(H / 2), ceil(W / 2), 2 dim]``: a convolution of stride 2, then LayerNorm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = GridConv(dim, 2 * dim, 3, stride=2, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns 2*dim"]:
        return self.norm(self.reduction(tokens))


class PatchTokenizer(nn.Module):
    """``[B, H, W, in_chans] -> [B, ceil(H / side), ceil(W / side), dim]``: each patch a token, then LayerNorm.

    Patches that reach beyond the image are filled with zeros.
    """

    def __init__(self, in_chans: int, dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.projection = nn.Conv2d(in_chans, dim, side, side)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Float[Tensor, "batch height width in_chans"]) -> Float[Tensor, "batch rows columns dim"]:
        image = F.pad(image, (0, 0, 0, -image.shape[2] % self.side, 0, -image.shape[1] % self.side))
        return self.norm(self.projection(image.movedim(-1, 1)).movedim(1, -1))


class PatchMerging(nn.Module):
    """``[B, H, W, dim] -> [B, ceil(H / 2), ceil(W / 2), 2 dim]``: LayerNorm and projection of 2 x 2 tokens (Swin).

    Their channels follow one another column by column: above left, below left, above right, below right.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns 2*dim"]:
        tokens = F.pad(tokens, (0, 0, 0, tokens.shape[2] % 2, 0, tokens.shape[1] % 2))
        four = [tokens[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(four, -1)))


class DiNATLayer(nn.Module):
    """``x = x + g1 attention(norm1(x)); x = x + g2 mlp(norm2(x))``; the weights g1, g2 only with a layer scale.

    Grids smaller than a dilated neighborhood are grown with zero tokens at their ends, as the official layer does.

    Shapes: ``[B, H, W, dim] -> [B, H, W, dim]``.
    """

    def __init__(self, config: DiNATConfig, dim: int, heads: int, *, dilation: int, drop_path: float) -> None:
        super().__init__()
        self.smallest = config.kernel_size * dilation
        self.norm1 = nn.LayerNorm(dim)
        self.attention = NeighborhoodAttention(
            dim,
            heads,
            config.kernel_size,
            dilation=dilation,
            qkv_bias=config.qkv_bias,
            qk_scale=config.qk_scale,
            proj_drop=config.drop_rate,
            rel_pos_bias=True,
            axes=2,
        )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * config.mlp_ratio), dropout=config.drop_rate)
        self.drop_path = DropPath(drop_path)
        scale = None if config.layer_scale is None else float(config.layer_scale)
        self.scale1 = None if scale is None else nn.Parameter(torch.full((dim,), scale))
        self.scale2 = None if scale is None else nn.Parameter(torch.full((dim,), scale))

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        branch = self.attend(self.norm1(tokens))
        tokens = tokens + self.drop_path(branch if self.scale1 is None else self.scale1 * branch)
        branch = self.mlp(self.norm2(tokens))
        return tokens + self.drop_path(branch if self.scale2 is None else self.scale2 * branch)

    def attend(self, tokens: Tensor) -> Tensor:
        height, width = tokens.shape[1:3]
        below, right = max(0, self.smallest - height), max(0, self.smallest - width)
        if not below and not right:
            return self.attention(tokens)
        return self.attention(F.pad(tokens, (0, 0, 0, right, 0, below)))[:, :height, :width]


class DiNATLevel(nn.Module):
    """The layers of one resolution, then the way to the next (not after the last level)."""

    def __init__(self, config: DiNATConfig, level: int, drop_paths: list[float]) -> None:
        super().__init__()
        dim = config.width(level)
        self.layers = nn.ModuleList(
            DiNATLayer(config, dim, config.num_heads[level], dilation=dilation, drop_path=rate)
            for dilation, rate in zip(config.dilations_of(level), drop_paths, strict=True)
        )
        self.downsampler = nn.Identity()
        if level + 1 < len(config.depths):
            self.downsampler = ConvDownsampler(dim) if config.patch_size is None else PatchMerging(dim)

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns dims"]:
        for layer in self.layers:
            tokens = layer(tokens)
        return self.downsampler(tokens)


class DiNAT(nn.Module):
    """The classifier: ``[B, in_chans, H, W] -> [B, num_classes]``; with no classes, the features ``[B, C]``.

    Images may have any size; each level halves the grid and rounds up.
    """

    def __init__(self, config: DiNATConfig) -> None:
        super().__init__()
        self.config = config
        if config.patch_size is None:
            self.tokenizer = ConvTokenizer(config.in_chans, config.embed_dim)
        else:
            self.tokenizer = PatchTokenizer(config.in_chans, config.embed_dim, config.patch_size)
        self.dropout = nn.Dropout(config.drop_rate)
        self.levels = nn.ModuleList(
            DiNATLevel(config, level, rates)
            for level, rates in enumerate(rising_rates(config.drop_path_rate, config.depths))
        )
        dim = config.width(len(config.depths) - 1)
        self.norm = nn.LayerNorm(dim)
        self.head = Linear(dim, config.num_classes) if config.num_classes else nn.Identity()

    def forward(self, x: Float[Tensor, "batch in_chans height width"]) -> Float[Tensor, "batch classes"]:
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """The mean token after the last level: ``[B, in_chans, H, W] -> [B, C]``."""
        tokens = self.dropout(self.tokenizer(x.movedim(1, -1)))
        for level in self.levels:
            tokens = level(tokens)
        return self.norm(tokens).mean(dim=(1, 2))
