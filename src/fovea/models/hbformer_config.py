"""Configuration of HBFormer (arXiv 2512.03597), in the words of its official code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fovea.models.swin_config import Order, SwinConfig

WINDOWS = (7, 8, 6, 5, 4)
"""Window sides that the official code tries, in this order; the first that divides a quarter of the image counts."""


@dataclass(frozen=True)
class HBFormerConfig:
    """The shape of a :class:`fovea.models.hbformer.HBFormer`; the defaults are the published network for Synapse.

    Attributes:
        img_size: size that windows and bias tables are made for. Images of other sizes go through as well.
        in_chans: of the image; three for a grey slice prepared by :func:`fovea.models.hbformer.three_channels`.
        num_classes: with the background.
        embed_dim, depths, num_heads, mlp_ratio, drop_path_rate: of the Swin encoder.
        window: side of its windows; if none, the first of 7, 8, 6, 5, 4 that divides a quarter of ``img_size``.
        order: of filling up and rolling grids that its windows do not divide, see
            :class:`fovea.models.swin_config.SwinConfig`; the official code's is ``"roll-pad"``.
        feature_size: n, the decoder's channels at its finest level; half of ``embed_dim``.
        dilations, experts: of the decoder's mixtures; one expert means ordinary kernels, the same for every image.
        norm: of the decoder, ``"batch"`` or ``"group"``, the latter for training with one or two images a batch.
        skips: ``"finer"``: encoder features join one level finer than where they were made, the bridge of the paper.
            ``"natural"``: they join at their own level (the finest has none of its own and gets the first stage's).
        decoder: ``"mff"``, or ``"unet"`` for concatenation and two convolutions at each level, natural skips.
    """

    img_size: int | tuple[int, int] = 256
    in_chans: int = 3
    num_classes: int = 9
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratio: float = 4.0
    drop_path_rate: float = 0.2
    window: int | None = None
    order: Order = "pad-roll"
    feature_size: int = 48
    dilations: tuple[int, ...] = (1, 4, 8)
    experts: int = 4
    norm: Literal["batch", "group"] = "batch"
    skips: Literal["finer", "natural"] = "finer"
    decoder: Literal["mff", "unet"] = "mff"

    def __post_init__(self) -> None:
        for name in ("img_size", "depths", "num_heads", "dilations"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if len(self.depths) != 4:
            raise ValueError(f"depths={self.depths}; the encoder has four stages")
        if 2 * self.feature_size != self.embed_dim:
            raise ValueError(
                f"feature_size={self.feature_size}; it must be half of embed_dim={self.embed_dim}, "
                "so that the third stage's features join as they are"
            )
        if self.decoder == "mff" and self.feature_size < 8:
            raise ValueError(f"feature_size={self.feature_size}; it must be at least 8")
        if self.num_classes < 2:
            raise ValueError(f"num_classes={self.num_classes}; it must be at least 2, the background is one")
        if self.experts < 1 or not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations={self.dilations}, experts={self.experts}; all must be at least 1")
        for name, words in (
            ("norm", ("batch", "group")),
            ("skips", ("finer", "natural")),
            ("decoder", ("mff", "unet")),
        ):
            if getattr(self, name) not in words:
                raise ValueError(f"{name}={getattr(self, name)!r}; it must be {' or '.join(map(repr, words))}")
        _ = self.encoder

    @property
    def encoder(self) -> SwinConfig:
        """The encoder's own configuration."""
        size = (self.img_size, self.img_size) if isinstance(self.img_size, int) else self.img_size
        fitting = (side for side in WINDOWS if all(length % (4 * side) == 0 for length in size))
        window = self.window if self.window is not None else next(fitting, 8)
        return SwinConfig(
            img_size=size,
            in_chans=self.in_chans,
            embed_dim=self.embed_dim,
            depths=self.depths,
            num_heads=self.num_heads,
            window_size=window,
            mlp_ratio=self.mlp_ratio,
            drop_path_rate=self.drop_path_rate,
            order=self.order,
        )


HBFORMER = HBFormerConfig()

VARIANTS: dict[str, HBFormerConfig] = {"HBFormer": HBFORMER}
