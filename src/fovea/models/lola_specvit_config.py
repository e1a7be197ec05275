"""Configuration of LoLA-SpecViT, in the words of its official constructor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Adapter = Literal["standard", "gated", "none"]


@dataclass(frozen=True)
class LoLASpecViTConfig:
    """The shape of a :class:`fovea.models.lola_specvit.LoLASpecViT`; the defaults are the published sizes.

    Attributes:
        variant: ``"paper"`` is what the paper describes: adapters of low rank that start at zero, windows that end
            where the grid ends. ``"official"`` is what the published code computes: gated adapters with full matrices,
            every linear map started at random, and windows filled up with unmasked zeros.
        in_channels: components of a spectrum, K.
        num_classes: classes to tell apart.
        dim: channels of the first level; each further level doubles them.
        depths, num_heads, window_size: of each level.
        mlp_ratio: hidden channels of the MLPs, as a multiple of a level's.
        drop_path_rate: stochastic depth of the last block (it grows linearly from 0).
        spatial_size: side of the patch, P.
        r, lora_alpha: rank and scale of the adapters.
        front: channels of the first and the second 3-D convolution.
        squeeze: divisor of the channels inside channel attention.
        band_dropout: share of the spectral positions that are left out in training.
        drop_rate: dropout after the position is added.
        lora: which adapters; what the variant says unless given.
        local_attention: without it, blocks are their MLPs alone.
    """

    variant: Literal["paper", "official"] = "paper"
    in_channels: int = 15
    num_classes: int = 16
    dim: int = 96
    depths: tuple[int, ...] = (3, 4, 19)
    num_heads: tuple[int, ...] = (4, 8, 16)
    window_size: tuple[int, ...] = (7, 7, 7)
    mlp_ratio: float = 4.0
    drop_path_rate: float = 0.2
    spatial_size: int = 15
    r: int = 16
    lora_alpha: float = 32.0
    front: tuple[int, int] = (32, 64)
    squeeze: int = 16
    band_dropout: float = 0.1
    drop_rate: float = 0.1
    lora: Adapter | None = None
    local_attention: bool = True

    def __post_init__(self) -> None:
        for name in ("depths", "num_heads", "window_size", "front"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if self.variant not in ("paper", "official"):
            raise ValueError(f"variant={self.variant!r}; it must be 'paper' or 'official'")
        if self.lora not in ("standard", "gated", "none", None):
            raise ValueError(f"lora={self.lora!r}; it must be 'standard', 'gated' or 'none'")
        if not self.depths or not len(self.depths) == len(self.num_heads) == len(self.window_size):
            raise ValueError(
                f"depths={self.depths}, num_heads={self.num_heads} and window_size={self.window_size}; "
                "they must name the same levels"
            )
        for level, heads in enumerate(self.num_heads):
            if heads < 1 or self.width(level) % heads:
                raise ValueError(f"num_heads={self.num_heads}; {heads} must divide {self.width(level)} channels")
        if min(self.window_size) < 1:
            raise ValueError(f"window_size={self.window_size}; windows have at least one token a side")
        if self.spatial_size < 2:
            raise ValueError(f"spatial_size={self.spatial_size}; a patch has at least 2 pixels a side")
        if self.dim < self.squeeze:
            raise ValueError(f"squeeze={self.squeeze}; it must be at most dim={self.dim}")
        for name in ("in_channels", "num_classes", "r"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least 1")
        for name in ("drop_path_rate", "band_dropout", "drop_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least 0 and below 1")

    @property
    def adapter(self) -> Adapter:
        """Which adapters the linear maps carry."""
        return self.lora or ("gated" if self.variant == "official" else "standard")

    @property
    def grid(self) -> int:
        """Side of the first level's grid."""
        return self.spatial_size // 2

    def width(self, level: int) -> int:
        """Channels of a level."""
        return self.dim * 2**level


VARIANTS: dict[str, LoLASpecViTConfig] = {
    "paper": LoLASpecViTConfig(),
    "official": LoLASpecViTConfig(variant="official"),
}
