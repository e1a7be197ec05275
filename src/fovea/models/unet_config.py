"""Configuration of the plain U-Net that segmentation networks are compared with (arXiv 1505.04597)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a :class:`fovea.models.unet.UNet`.

    Attributes:
        in_chans, num_classes: channels in and out, the latter with the background.
        width: channels of the finest level; each coarser one has twice as many.
        levels: grids, each half as fine as the one before.
        norm: after each convolution, ``"batch"`` or ``"group"``.
    """

    in_chans: int = 3
    num_classes: int = 9
    width: int = 32
    levels: int = 5
    norm: Literal["batch", "group"] = "batch"

    def __post_init__(self) -> None:
        for name, least in (("in_chans", 1), ("num_classes", 2), ("width", 1), ("levels", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least {least}")
        if self.norm not in ("batch", "group"):
            raise ValueError(f"norm={self.norm!r}; it must be 'batch' or 'group'")
