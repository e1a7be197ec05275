"""Swin UNETR: a shifted-window transformer that looks down, convolutions that build up (arXiv 2201.01266).

A volume becomes tokens, one for 2 x 2 x 2 voxels. Four stages of shifted-window blocks each end by merging
neighbouring tokens. What every scale has found, and the volume itself, passes a residual convolution block and joins
the way up, where transposed convolutions double the grid until it is the volume's.

Tokens are a grid with channels last, ``[B, *grid, C]``; feature maps are channels first, ``[B, C, *grid]``, in the
same memory. Everything works on images (2 axes) as on volumes (3 axes).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fovea.models.swin_unetr_config import SwinUNETRConfig
from fovea.nn.drop_path import rising_rates
from fovea.nn.linear import Linear
from fovea.nn.patch_merging import PatchMerging
from fovea.nn.residual_convolution import CHANNELS_LAST, CONVOLUTIONS, ResidualConvBlock, ResidualUpBlock
from fovea.nn.shifted_windows import ShiftedWindowBlock


class SwinStage(nn.Module):
    """One scale: (a convolution block,) window blocks, every second shifted by half a window, and patch merging.

    Shapes: ``[B, *grid, C] -> [B, *ceil(grid / 2), 2 C]``.
    """

    def __init__(self, config: SwinUNETRConfig, stage: int, drop_paths: list[float]) -> None:
        super().__init__()
        dim, axes, window = config.feature_size * 2**stage, config.spatial_axes, config.window
        half = tuple(size // 2 for size in window)
        self.recompute = config.gradient_checkpointing
        self.convolution = ResidualConvBlock(dim, dim, axes=axes) if config.stage_convolutions else None
        self.blocks = nn.ModuleList(
            ShiftedWindowBlock(
                dim,
                config.num_heads[stage],
                window,
                half if config.shifted and index % 2 else 0,
                mlp_ratio=config.mlp_ratio,
                dropout=config.drop_rate,
                drop_path=rate,
                shrunk_bias=config.shrunk_bias,
                qkv_bias=config.qkv_bias,
            )
            for index, rate in enumerate(drop_paths)
        )
        self.merging = PatchMerging(dim, axes=axes, order=config.merging)

    def forward(self, tokens: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *_ 2*dim"]:
        if self.convolution is not None:
            tokens = self.convolution(tokens.movedim(-1, 1)).movedim(1, -1)
        for block in self.blocks:
            tokens = _run(block, tokens, self.recompute)
        return self.merging(tokens)


class SwinUNETR(nn.Module):
    """The whole network: ``[B, in_channels, *size] -> [B, out_channels, *size]``, logits.

    Classes are exclusive (softmax) or not (sigmoid) as the loss has it; neither is applied here. Sizes that are no
    multiple of 32 are filled up with zeros at their ends inside, and cropped again.

    Attributes:
        config: its configuration.
        patch_embedding: the convolution that makes tokens.
        stages: the way down.
        encoders: residual blocks of the volume and of the three finest scales; the coarsest but one joins as it is.
        bottleneck: the residual block of the coarsest scale.
        decoders: the way up, coarsest first.
        head: the logits.
    """

    def __init__(self, config: SwinUNETRConfig) -> None:
        super().__init__()
        self.config = config
        axes, f = config.spatial_axes, config.feature_size
        patch = config.patch_size
        self.patch_embedding = CONVOLUTIONS[axes](config.in_channels, f, patch, patch)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.stages = nn.ModuleList(SwinStage(config, stage, rates[stage]) for stage in range(4))
        widths = ((config.in_channels, f), (f, f), (2 * f, 2 * f), (4 * f, 4 * f))
        self.encoders = nn.ModuleList(ResidualConvBlock(inputs, outputs, axes=axes) for inputs, outputs in widths)
        self.bottleneck = ResidualConvBlock(16 * f, 16 * f, axes=axes)
        steps = ((16 * f, 8 * f), (8 * f, 4 * f), (4 * f, 2 * f), (2 * f, f), (f, f))
        self.decoders = nn.ModuleList(ResidualUpBlock(inputs, outputs, axes=axes) for inputs, outputs in steps)
        self.head = CONVOLUTIONS[axes](f, config.out_channels, 1)
        for module in self.modules():
            if isinstance(module, Linear):
                nn.Linear.reset_parameters(module)  # the published code starts linear layers as PyTorch does

    def forward(self, x: Float[Tensor, "batch in_channels *size"]) -> Float[Tensor, "batch out_channels *size"]:
        size = tuple(x.shape[2:])
        x = self._filled(x)
        scales = self.hidden_states(x)
        y = self.bottleneck(scales.pop())
        y = self.decoders[0](y, scales.pop())
        for decoder, encoder in zip(self.decoders[1:4], self.encoders[:0:-1], strict=True):
            y = decoder(y, encoder(scales.pop()))
        y = self.head(self.decoders[4](y, self.encoders[0](x)))
        return y[(..., *(slice(0, n) for n in size))]

    def hidden_states(self, x: Tensor) -> list[Tensor]:
        """What the way up reads: ``[B, f, *size / 2]``, ``[B, 2 f, *size / 4]``, ... to ``[B, 16 f, *size / 32]``."""
        tokens = self.patch_embedding(x).movedim(1, -1)
        found = [self._outward(tokens)]
        for stage in self.stages:
            tokens = stage(tokens)
            found.append(self._outward(tokens))
        return found

    def _outward(self, tokens: Tensor) -> Tensor:
        """A stage's output as a feature map."""
        seen = F.layer_norm(tokens, tokens.shape[-1:]) if self.config.normalize else tokens
        return seen.movedim(-1, 1)

    def _filled(self, x: Tensor) -> Tensor:
        axes = self.config.spatial_axes
        if x.ndim != axes + 2 or x.shape[1] != self.config.in_channels:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; it must be [batch, {self.config.in_channels}, "
                f"{'depth, height, width' if axes == 3 else 'height, width'}]"
            )
        missing = [-n % self.config.multiple for n in x.shape[2:]]
        if any(missing):
            x = F.pad(x, [side for count in reversed(missing) for side in (0, count)])
        return x.contiguous(memory_format=CHANNELS_LAST[axes])


def _run(block: Callable[[Tensor], Tensor], tokens: Tensor, recompute: bool) -> Tensor:
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, tokens, use_reentrant=False)  # type: ignore[return-value]
    return block(tokens)
