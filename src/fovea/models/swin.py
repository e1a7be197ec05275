"""Swin: windows that are shifted from block to block, as an encoder of images (arXiv 2103.14030, section 3).

Patches become tokens with LayerNorm. Each stage but the first begins with patch merging, which halves the grid and
doubles the channels; its blocks attend inside windows, every other block inside windows shifted by half. Tokens stay a
grid with channels last, ``[B, H, W, C]``.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.models.swin_config import SwinConfig
from fovea.nn import rising_rates
from fovea.nn.patch_merging import PatchMerging
from fovea.nn.shifted_windows import ShiftedWindowBlock


class SwinStage(nn.Module):
    """Patch merging, but not in the first stage, then blocks, every other one shifted."""

    def __init__(self, config: SwinConfig, stage: int, drop_paths: list[float]) -> None:
        super().__init__()
        self.merging = PatchMerging(config.channels(stage - 1)) if stage else nn.Identity()
        window = config.window(stage)
        self.blocks = nn.ModuleList(
            ShiftedWindowBlock(
                config.channels(stage),
                config.num_heads[stage],
                window,
                (window[0] // 2, window[1] // 2) if i % 2 else 0,
                mlp_ratio=config.mlp_ratio,
                drop_path=rate,
                order=config.order,
                qkv_bias=config.qkv_bias,
            )
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, tokens: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows columns _"]:
        tokens = self.merging(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class SwinEncoder(nn.Module):
    """``[B, in_chans, H, W]`` to the features of every stage, ``[B, C, ceil(H / s), ceil(W / s)]`` with s 4, 8, ...

    Features are taken after a stage's blocks and before the next merging, without a norm of their own. Patches that
    reach beyond the image are filled with zeros.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Conv2d(config.in_chans, config.embed_dim, config.patch_size, config.patch_size)
        self.embed_norm = nn.LayerNorm(config.embed_dim)
        rates = rising_rates(config.drop_path_rate, config.depths)
        self.stages = nn.ModuleList(SwinStage(config, stage, drops) for stage, drops in enumerate(rates))

    def forward(self, x: Float[Tensor, "batch in_chans height width"]) -> list[Tensor]:
        side = self.config.patch_size
        x = F.pad(x, (0, -x.shape[-1] % side, 0, -x.shape[-2] % side))
        tokens = self.embed_norm(self.embed(x).movedim(1, -1))
        features = []
        for stage in self.stages:
            tokens = stage(tokens)
            features.append(tokens.movedim(-1, 1))
        return features
