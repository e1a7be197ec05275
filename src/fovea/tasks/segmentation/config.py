"""The configuration of a segmentation of volumes: which network learns what, from which volumes, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from fovea.errors import UsageError
from fovea.models.swin_unetr_config import SwinUNETRConfig
from fovea.models.volume_unet_config import VolumeUNetConfig
from fovea.tasks.optimisation import Hardware, Optimisation

Coding = Literal["brats", "msd-brats", "classes"]


@dataclass(frozen=True)
class Data:
    """What is segmented, and how volumes are prepared and cut."""

    coding: Coding = "brats"
    """What the labels mean: ``brats`` (1 necrosis, 2 oedema, 4 enhancing) and ``msd-brats`` (1 oedema, 2 non-enhancing,
    3 enhancing) become the three overlapping regions TC, WT, ET; ``classes`` are exclusive, 0 the background."""
    modalities: tuple[str, ...] = ("flair", "t1ce", "t1", "t2")
    """Of a BraTS folder, in the order of the network's channels; JSON files say their own order."""
    roi: tuple[int, int, int] = (96, 96, 96)
    """Size of the training crops and of the sliding window, in voxels."""
    normalise: Literal["volume", "crop"] = "volume"
    """Whether the mean and deviation of non-zero voxels are those of the whole volume, or in training of the crop, as
    the official code has it (and then differ between training and test)."""
    foreground: float = 0.0
    """Share of the training crops that are centred on a voxel with something to segment; others lie anywhere."""
    augment: bool = True
    """Flip each axis, scale the intensity by up to a tenth and shift it."""
    overlap: float = 0.5
    """Of neighbouring positions of the sliding window."""
    blend: Literal["gaussian", "constant"] = "gaussian"
    """How the logits of overlapping windows are weighed."""
    flips: bool = False
    """Whether test volumes are also seen flipped along each axis (8 times the work) and logits averaged."""
    fold: int = 0
    """Of a JSON file of folds: the cases held out."""
    held_out: int = 8
    """Of other data: the last so many cases, in the order of their names."""
    size: tuple[int, int, int] = (64, 64, 64)
    """Of generated volumes."""
    train_cases: int = 24
    test_cases: int = 6
    """Generated volumes to learn from and to measure on."""
    cache: float = 2.0
    """Gigabytes of prepared volumes that are kept in memory."""


@dataclass(frozen=True)
class Loss:
    """What is minimised (MONAI's losses)."""

    kind: Literal["dice", "dice-ce"] = "dice-ce"
    """Dice alone, as in the official code, or with the cross-entropy of each voxel beside it."""
    squared: bool = False
    """Squared denominators, as the paper writes the loss."""


@dataclass(frozen=True)
class WarmCosine(Optimisation):
    """An :class:`Optimisation` whose half cosine begins after the warm-up, as in the official code."""

    def rate(self, step: int) -> float:
        if self.schedule != "cosine" or step <= self.warmup:
            return super().rate(step) if self.schedule != "cosine" else self.lr * step / self.warmup
        gone = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.lr * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * gone)))


@dataclass(frozen=True)
class VolumesConfig:
    """One training or use of a network that segments volumes."""

    model: Literal["swin-unetr", "unet"] = "swin-unetr"
    network: SwinUNETRConfig = field(default_factory=SwinUNETRConfig)
    unet: VolumeUNetConfig = field(default_factory=VolumeUNetConfig)
    """The plain U-Net, for ``model=unet`` and as the baseline of the demonstration; channels are the network's."""
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    optimisation: WarmCosine = field(default_factory=WarmCosine)
    hardware: Hardware = field(default_factory=Hardware)
    seed: int = 0

    def __post_init__(self) -> None:
        data = self.data
        if self.network.spatial_axes != 3:
            raise UsageError(f"network.spatial_axes={self.network.spatial_axes}; volumes have 3")
        if self.regions and self.network.out_channels != 3:
            raise UsageError(
                f"network.out_channels={self.network.out_channels}; data.coding={data.coding} has three regions"
            )
        if not self.regions and self.network.out_channels < 2:
            raise UsageError(f"network.out_channels={self.network.out_channels}; exclusive classes are at least two")
        if min(data.roi) < 1 or min(data.size) < 16:
            raise UsageError(f"data.roi={data.roi}, data.size={data.size}; at least 1 and 16 voxels an axis")
        if not 0 <= data.overlap < 1:
            raise UsageError(f"data.overlap={data.overlap}; it must be in [0, 1)")
        if not 0 <= data.foreground <= 1:
            raise UsageError(f"data.foreground={data.foreground}; it must be between 0 and 1")
        if data.held_out < 1 or data.train_cases < 1 or data.test_cases < 1:
            raise UsageError("data.held_out, data.train_cases and data.test_cases must be at least 1")

    @property
    def regions(self) -> bool:
        """Whether the channels of the logits are regions that overlap, each with a sigmoid of its own."""
        return self.data.coding != "classes"
