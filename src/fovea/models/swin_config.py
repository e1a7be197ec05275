"""Configuration and published variants of the two-dimensional Swin encoder (arXiv 2103.14030)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Order = Literal["pad-roll", "roll-pad"]


@dataclass(frozen=True)
class SwinConfig:
    """The shape of a :class:`fovea.models.swin.SwinEncoder`; the defaults are Swin-Tiny for 224 x 224 images.

    Attributes:
        img_size: size that windows and bias tables are made for. Images of other sizes go through as well.
        patch_size: pixels a side of a token.
        in_chans, embed_dim: channels of the image and of the first stage; each stage doubles them.
        depths, num_heads: blocks and heads of each stage.
        window_size: side of a window, in tokens; a stage whose grid is no larger gets windows of its grid.
        mlp_ratio, qkv_bias: of the blocks.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        order: how grids that windows do not divide are filled up with zeros, which are attended to: before they are
            rolled (``"pad-roll"``, the paper's code) or after (``"roll-pad"``, timm).
    """

    img_size: int | tuple[int, int] = 224
    patch_size: int = 4
    in_chans: int = 3
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path_rate: float = 0.2
    order: Order = "pad-roll"

    def __post_init__(self) -> None:
        for name in ("img_size", "depths", "num_heads"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if not self.depths or len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths={self.depths} and num_heads={self.num_heads}; they must name the same stages")
        for stage, heads in enumerate(self.num_heads):
            if heads < 1 or self.channels(stage) % heads:
                raise ValueError(
                    f"num_heads={self.num_heads}; each must divide its stage's channels, "
                    f"{tuple(map(self.channels, range(len(self.depths))))}"
                )
        if self.window_size < 1:
            raise ValueError(f"window_size={self.window_size}; it must be at least 1")
        if self.order not in ("pad-roll", "roll-pad"):
            raise ValueError(f"order={self.order!r}; it must be 'pad-roll' or 'roll-pad'")
        if min(self.size) < self.multiple:
            raise ValueError(f"img_size={self.img_size}; each side must be at least {self.multiple}")

    @property
    def size(self) -> tuple[int, int]:
        """``img_size`` as height and width."""
        return (self.img_size, self.img_size) if isinstance(self.img_size, int) else self.img_size

    @property
    def multiple(self) -> int:
        """What sides of images must be multiples of for every stage to have a whole grid."""
        return self.patch_size * 2 ** (len(self.depths) - 1)

    def channels(self, stage: int) -> int:
        return self.embed_dim * 2**stage

    def window(self, stage: int) -> tuple[int, int]:
        """Height and width of the stage's windows: never larger than the grid that ``img_size`` has there."""
        side = self.patch_size * 2**stage
        rows, columns = (-(-size // side) for size in self.size)
        return min(rows, self.window_size), min(columns, self.window_size)


SWIN_TINY = SwinConfig()

VARIANTS: dict[str, SwinConfig] = {
    "Swin-T": SWIN_TINY,
    "Swin-S": replace(SWIN_TINY, depths=(2, 2, 18, 2), drop_path_rate=0.3),
    "Swin-B": replace(SWIN_TINY, embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), drop_path_rate=0.5),
}
