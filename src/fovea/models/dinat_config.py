"""Configuration and published variants of NAT and DiNAT, in the words of their official constructor."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class DiNATConfig:
    """The shape of a :class:`fovea.models.dinat.DiNAT`; the defaults are NAT-Mini.

    Attributes:
        embed_dim: channels of the first level; they double from level to level.
        mlp_ratio: hidden channels of the MLPs, as a multiple of the level's.
        depths, num_heads: layers and heads of each level.
        kernel_size: of every neighborhood.
        dilations: one a layer for each level, or none: all 1, which is NAT.
        num_classes: 0 for no head.
        in_chans: channels of the image.
        qkv_bias, qk_scale: bias of the projections, scale of the logits (``head_dim ** -0.5`` unless given).
        drop_rate, attn_drop_rate, drop_path_rate: dropout of projections; of attention weights, which must be 0
            because these never exist as a tensor; stochastic depth of the last layer (it grows linearly from 0).
        layer_scale: initial weight of each branch, learnt for every channel; none for no such weights.
        patch_size: none for tokens from two overlapping convolutions and levels joined by convolutions (NAT, DiNAT). A
            number for tokens from patches of that side, and levels joined by merging 2 x 2 tokens (DiNAT_s; with one
            level the isotropic networks).
    """

    embed_dim: int = 64
    mlp_ratio: float = 3.0
    depths: tuple[int, ...] = (3, 4, 6, 5)
    num_heads: tuple[int, ...] = (2, 4, 8, 16)
    kernel_size: int = 7
    dilations: tuple[tuple[int, ...], ...] | None = None
    num_classes: int = 1000
    in_chans: int = 3
    qkv_bias: bool = True
    qk_scale: float | None = None
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.2
    layer_scale: float | None = None
    patch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("depths", "num_heads"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.dilations is not None:
            rows = (
                (1,) * depth if row is None else tuple(row)
                for row, depth in zip(self.dilations, self.depths, strict=True)
            )
            object.__setattr__(self, "dilations", tuple(rows))
        if not self.depths or len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths={self.depths} and num_heads={self.num_heads}; they must name the same levels")
        for level, heads in enumerate(self.num_heads):
            if heads < 1 or self.width(level) % heads:
                raise ValueError(
                    f"num_heads={self.num_heads}; level {level} has {self.width(level)} channels, which "
                    f"{heads} heads do not divide"
                )
        if self.dilations is not None and tuple(map(len, self.dilations)) != self.depths:
            raise ValueError(
                f"dilations={self.dilations}; it must hold one number for each of the layers {self.depths}"
            )
        if self.patch_size is not None and self.patch_size < 1:
            raise ValueError(f"patch_size={self.patch_size}; it must be at least 1, or none")
        if self.attn_drop_rate:
            raise ValueError(f"attn_drop_rate={self.attn_drop_rate}; it must be 0, attention weights are never stored")

    def width(self, level: int) -> int:
        """Channels of a level."""
        return self.embed_dim * 2**level

    def dilations_of(self, level: int) -> tuple[int, ...]:
        """The dilation of each layer of a level."""
        return (1,) * self.depths[level] if self.dilations is None else self.dilations[level]


def dilated(config: DiNATConfig, *largest: int) -> DiNATConfig:
    """The same network with layers that alternate between dilation 1 and each level's largest.

    >>> dilated(DiNATConfig(), 8, 4, 2, 1).dilations
    ((1, 8, 1), (1, 4, 1, 4), (1, 2, 1, 2, 1, 2), (1, 1, 1, 1, 1))
    """
    rows = (tuple((1, most)[i % 2] for i in range(depth)) for depth, most in zip(config.depths, largest, strict=True))
    return replace(config, dilations=tuple(rows))


NAT_MINI = DiNATConfig()
NAT_TINY = replace(NAT_MINI, depths=(3, 4, 18, 5))
NAT_SMALL = replace(
    NAT_TINY, embed_dim=96, num_heads=(3, 6, 12, 24), mlp_ratio=2.0, drop_path_rate=0.3, layer_scale=1e-5
)
NAT_BASE = replace(NAT_SMALL, embed_dim=128, num_heads=(4, 8, 16, 32), drop_path_rate=0.5)
DINAT_LARGE = dilated(
    replace(NAT_SMALL, embed_dim=192, num_heads=(6, 12, 24, 48), drop_path_rate=0.35, layer_scale=None), 8, 4, 2, 1
)

DINAT_S_TINY = dilated(
    DiNATConfig(depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), embed_dim=96, mlp_ratio=4.0, patch_size=4), 8, 4, 2, 1
)
DINAT_S_SMALL = dilated(replace(DINAT_S_TINY, depths=(2, 2, 18, 2), drop_path_rate=0.3, dilations=None), 8, 4, 2, 1)
DINAT_S_BASE = replace(DINAT_S_SMALL, embed_dim=128, num_heads=(4, 8, 16, 32), drop_path_rate=0.5)
DINAT_S_LARGE = replace(DINAT_S_BASE, embed_dim=192, drop_path_rate=0.35)
NAT_ISOTROPIC_SMALL = DiNATConfig(
    depths=(12,), num_heads=(12,), embed_dim=384, mlp_ratio=4.0, drop_path_rate=0.1, patch_size=16
)
NAT_ISOTROPIC_BASE = replace(NAT_ISOTROPIC_SMALL, num_heads=(24,), embed_dim=768, drop_path_rate=0.4)

VARIANTS: dict[str, DiNATConfig] = {
    "NAT-Mini": NAT_MINI,
    "NAT-Tiny": NAT_TINY,
    "NAT-Small": NAT_SMALL,
    "NAT-Base": NAT_BASE,
    "DiNAT-Mini": dilated(NAT_MINI, 8, 4, 2, 1),
    "DiNAT-Tiny": dilated(NAT_TINY, 8, 4, 2, 1),
    "DiNAT-Small": dilated(replace(NAT_SMALL, layer_scale=None), 8, 4, 2, 1),
    "DiNAT-Base": dilated(NAT_BASE, 8, 4, 2, 1),
    "DiNAT-Large": DINAT_LARGE,
    "DiNAT-Large-384": dilated(DINAT_LARGE, 13, 6, 3, 1),
    "DiNAT-Large-384-11x11": replace(DINAT_LARGE, kernel_size=11),
    "DiNAT_s-Tiny": DINAT_S_TINY,
    "DiNAT_s-Small": DINAT_S_SMALL,
    "DiNAT_s-Base": DINAT_S_BASE,
    "DiNAT_s-Large": DINAT_S_LARGE,
    "DiNAT_s-Large-384": dilated(DINAT_S_LARGE, 13, 6, 3, 1),
    "NAT-Isotropic-Small": NAT_ISOTROPIC_SMALL,
    "NAT-Isotropic-Base": NAT_ISOTROPIC_BASE,
    "DiNAT-Isotropic-Small": dilated(NAT_ISOTROPIC_SMALL, 2),
    "DiNAT-Isotropic-Base": dilated(NAT_ISOTROPIC_BASE, 2),
}
"""Published variants; those without a number are for images of 224 pixels."""
