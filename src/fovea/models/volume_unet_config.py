"""Configuration of the plain three-dimensional U-Net."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VolumeUNetConfig:
    """The shape of a :class:`fovea.models.volume_unet.VolumeUNet`.

    Attributes:
        in_channels, out_channels: of the volume and of the logits.
        width: channels of the finest level; each coarser one has twice as many.
        levels: grids, each half as fine as the one before.
    """

    in_channels: int = 4
    out_channels: int = 3
    width: int = 16
    levels: int = 5

    def __post_init__(self) -> None:
        for name, least in (("in_channels", 1), ("out_channels", 1), ("width", 1), ("levels", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least {least}")
