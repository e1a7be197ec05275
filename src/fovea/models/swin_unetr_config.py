"""Configuration and published variants of Swin UNETR."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

MERGING_ORDERS = ("legacy", "merging", "mergingv2")


@dataclass(frozen=True)
class SwinUNETRConfig:
    """The shape of a :class:`fovea.models.swin_unetr.SwinUNETR`; the defaults are that of the paper, for BraTS.

    Attributes:
        in_channels: of the volume, one a modality.
        out_channels: of the logits, one a class.
        feature_size: channels f of the finest features; the stages have f, 2f, 4f, 8f.
        depths, num_heads: blocks and heads of the four stages; heads divide the stage's channels.
        window_size: M, of each axis or one for all.
        patch_size: side of the patch that becomes a token.
        qkv_bias, mlp_ratio: of the blocks.
        drop_rate, drop_path_rate: dropout of projections; stochastic depth of the last block (it grows from 0).
        normalize: whether the decoder reads the stages' outputs after a layer norm without parameters.
        spatial_axes: 3 for volumes, 2 for images.
        stage_convolutions: a residual convolution block before each stage (MONAI's ``use_v2``).
        merging: order in which patch merging lays neighbours side by side (``fovea.nn.patch_merging``). ``legacy`` is
            that of all published checkpoints; a network trained with one order is useless with another.
        shrunk_bias: what windows smaller than M, on small grids, read from the table of relative biases:
            ``"geometric"``, the true offsets, or ``"official"``, which published checkpoints depend on.
        shifted: whether every second block shifts its windows.
        gradient_checkpointing: recompute the blocks in the backward pass instead of keeping their activations.
    """

    in_channels: int = 4
    out_channels: int = 3
    feature_size: int = 48
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    num_heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window_size: int | tuple[int, ...] = 7
    patch_size: int = 2
    qkv_bias: bool = True
    mlp_ratio: float = 4.0
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    normalize: bool = True
    spatial_axes: Literal[2, 3] = 3
    stage_convolutions: bool = False
    merging: Literal["legacy", "merging", "mergingv2"] = "merging"
    shrunk_bias: Literal["geometric", "official"] = "geometric"
    shifted: bool = True
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("depths", "num_heads", "window_size"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        for name in ("in_channels", "out_channels", "feature_size", "patch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least 1")
        if self.patch_size != 2:
            raise ValueError(f"patch_size={self.patch_size}; it must be 2, which the way up undoes")
        if self.spatial_axes not in (2, 3):
            raise ValueError(f"spatial_axes={self.spatial_axes}; it must be 2 or 3")
        if len(self.depths) != 4 or len(self.num_heads) != 4 or min(*self.depths, *self.num_heads) < 1:
            raise ValueError(f"depths={self.depths} and num_heads={self.num_heads}; each has four numbers from 1 on")
        for stage, heads in enumerate(self.num_heads):
            channels = self.feature_size * 2**stage
            if channels % heads:
                raise ValueError(
                    f"num_heads={self.num_heads}; stage {stage} has {channels} channels, which {heads} heads do not "
                    f"divide (feature_size={self.feature_size})"
                )
        if len(self.window) != self.spatial_axes or min(self.window) < 1:
            raise ValueError(f"window_size={self.window_size}; it must be one number from 1 on, or {self.spatial_axes}")
        if self.merging not in MERGING_ORDERS:
            raise ValueError(f"merging={self.merging!r}; it must be one of {', '.join(MERGING_ORDERS)}")
        if self.shrunk_bias not in ("geometric", "official"):
            raise ValueError(f"shrunk_bias={self.shrunk_bias!r}; it must be 'geometric' or 'official'")

    @property
    def window(self) -> tuple[int, ...]:
        """The window of each axis."""
        size = self.window_size
        return (size,) * self.spatial_axes if isinstance(size, int) else size

    @property
    def multiple(self) -> int:
        """What sizes are filled up to a multiple of: the side of a voxel of the coarsest grid."""
        return self.patch_size * 2**4


BRATS = SwinUNETRConfig(merging="legacy", shrunk_bias="official")
BTCV_BASE = replace(BRATS, in_channels=1, out_channels=14)

VARIANTS: dict[str, SwinUNETRConfig] = {
    "brats": BRATS,
    "btcv-base": BTCV_BASE,
    "btcv-small": replace(BTCV_BASE, feature_size=24),
    "btcv-tiny": replace(BTCV_BASE, feature_size=12),
}
"""Published checkpoints by what they were trained for; all of them need the legacy order and the official biases."""
