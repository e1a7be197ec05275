"""The configuration of a segmentation of slices: which network learns what, from which slices, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fovea.errors import UsageError
from fovea.models.hbformer_config import HBFormerConfig
from fovea.models.unet_config import UNetConfig
from fovea.tasks.optimisation import Hardware, Optimisation

Intensity = Literal["auto", "unit", "window", "percentiles"]
Fit = Literal["zoom", "pad"]


@dataclass(frozen=True)
class Data:
    """What is segmented."""

    size: int = 256
    """Side of the slices that the network is trained on, in pixels."""
    fit: Fit = "zoom"
    """How a slice gets that size: ``zoom`` interpolates it (cubic, labels nearest) and the prediction back, as the
    official code does; ``pad`` adds zeros around it, or cuts a part out for training, and keeps its pixels."""
    intensity: Intensity = "auto"
    """How voxels become [0, 1]: ``unit`` they are; ``window`` from ``low`` to ``high``; ``percentiles`` from the
    volume's 0.5th to its 99.5th. ``auto``: window for CT volumes in NIfTI, percentiles for other NIfTI, else unit."""
    low: float = -200.0
    high: float = 250.0
    """Of the window, in the image's unit (Hounsfield units for CT)."""
    axis: int = 2
    """Along which NIfTI volumes are cut; 2 is axial."""
    augment: bool = True
    """Turn by right angles and flip (half of the slices), or turn by up to 20 degrees (a quarter)."""
    foreground: float = 0.0
    """Share of the training slices that is drawn from those with something to segment; the others come as they are."""
    train_slices: int = 0
    """Generated slices that training draws from, again and again; 0 for new ones in every step."""
    test_slices: int = 64
    """Generated slices that are held out."""
    cases_held_out: int = 0
    """Measure only on the first so many cases held out; 0 for all."""
    structures: int = -1
    """Class whose connected structures are counted by size; -1 for the last."""

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UsageError(f"data.size={self.size}; it must be at least 32")
        if self.low >= self.high:
            raise UsageError(f"data.low={self.low}, data.high={self.high}; the window must have a width")
        if not 0 <= self.foreground <= 1:
            raise UsageError(f"data.foreground={self.foreground}; it must be between 0 and 1")
        if self.axis not in (0, 1, 2):
            raise UsageError(f"data.axis={self.axis}; it must be 0, 1 or 2")


@dataclass(frozen=True)
class Loss:
    """Weights of cross-entropy, Dice and focal loss."""

    ce: float = 0.33
    dice: float = 0.33
    focal: float = 0.34

    @property
    def weights(self) -> tuple[float, float, float]:
        return (self.ce, self.dice, self.focal)


@dataclass(frozen=True)
class Epochs(Optimisation):
    """An :class:`Optimisation` that may count in epochs: with ``epochs``, ``steps`` follows from the data.

    The cosine then moves once an epoch and has ``floor * lr`` at ``t_max`` epochs, by default as many as there are.
    (The official configurations say 300 and train for 100, so their rate ends at three quarters of its start.)
    """

    epochs: int = 0
    t_max: int = 0
    batches: int = 0
    """Of an epoch; counted from the data when training begins."""

    def rate(self, step: int) -> float:
        if not (self.epochs and self.batches and self.schedule == "cosine"):
            return super().rate(step)
        epoch, whole = (step - 1) // self.batches, self.t_max or self.epochs
        factor = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(epoch / whole, 1.0)))
        return self.lr * factor * (min(1.0, step / self.warmup) if self.warmup else 1.0)

    def counted(self, examples: int) -> Epochs:
        """With the number of batches and steps for so many training slices."""
        if not self.epochs:
            return self
        batches = max(1, examples // self.batch)
        return replace(self, batches=batches, steps=self.epochs * batches)


@dataclass(frozen=True)
class SlicesConfig:
    """One training or use of a network that segments slices."""

    model: Literal["hbformer", "unet"] = "hbformer"
    network: HBFormerConfig = field(default_factory=HBFormerConfig)
    unet: UNetConfig = field(default_factory=lambda: UNetConfig())
    """The plain U-Net, for ``model=unet`` and as the baseline of the demonstration; classes are the network's."""
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    optimisation: Epochs = field(default_factory=Epochs)
    hardware: Hardware = field(default_factory=Hardware)
    encoder: Path | None = None
    """ImageNet weights for the encoder, a file in the layout of Swin's authors or of timm."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not -1 <= self.data.structures < self.network.num_classes:
            raise UsageError(f"data.structures={self.data.structures}; it must be a class, or -1 for the last")
        if self.network.in_chans != 3 or self.unet.in_chans != 3:
            raise UsageError("in_chans must be 3; slices become three channels")
        if min(self.loss.weights) < 0 or sum(self.loss.weights) <= 0:
            raise UsageError(f"loss={self.loss.weights}; weights must be 0 or more, and one above 0")

    @property
    def num_classes(self) -> int:
        """With the background; the network's, whichever model is trained."""
        return self.network.num_classes
