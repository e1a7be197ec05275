"""The configuration of an image restoration: which network learns what, from which images, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fovea.errors import UsageError
from fovea.models.hat_config import HATConfig
from fovea.tasks.optimisation import Hardware, Optimisation

Stage = Literal["sr", "denoise", "jpeg", "real", "real-gan"]


@dataclass(frozen=True)
class Data:
    """What is restored from what."""

    source: Literal["photographs", "textures", "both", "natural"] = "both"
    """Training images when no folder is given: scikit-image's photographs, generated textures, the two in turn, or
    generated images with the statistics of natural ones (dead leaves and clouds)."""
    held_out: tuple[str, ...] = ("coffee", "chelsea")
    """Photographs that are never trained on; they are what is validated."""
    patch: int = 64
    """Side of the low-quality training patch, in pixels; for restoration without upscaling the image's own."""
    crop: int = 400
    """Real photographs: side of the clean crop that is degraded, and from which the patch is then cut."""
    validation: Path | None = None
    """Folder of images that are validated instead of the photographs held out."""
    sigma: float = 25.0
    """Denoising: standard deviation of the Gaussian noise, in levels of 255."""
    quality: int = 40
    """JPEG artefacts: the quality that images are compressed with."""


@dataclass(frozen=True)
class Adversary:
    """The losses of the GAN stage (arXiv 2309.05239 and the official options)."""

    pixel: float = 1.0
    perceptual: Path | Literal["none"] | None = None
    """State dict of VGG19 for the perceptual loss, or the word ``none`` to do without."""
    perceptual_weight: float = 1.0
    weight: float = 0.1
    num_feat: int = 64
    sharpen: bool = True
    """Whether pixel and perceptual loss compare with the sharpened image; the discriminator never does."""


@dataclass(frozen=True)
class RestorationConfig:
    """One training or use of a restoration network."""

    stage: Stage = "sr"
    network: HATConfig = field(default_factory=HATConfig)
    data: Data = field(default_factory=Data)
    optimisation: Optimisation = field(default_factory=Optimisation)
    adversary: Adversary = field(default_factory=Adversary)
    hardware: Hardware = field(default_factory=Hardware)
    seed: int = 0
    beginning: Literal["random", "interpolation", "weights", "checkpoint"] = "random"
    """What a training begins with where no checkpoint is given: random layers as in the papers, layers that interpolate
    (``models/hat_start.py``), or ``weights``. With ``checkpoint`` one must be given: that of the stage before."""
    weights: str | None = None
    """Name of the weights that come with fovea and fit ``network``; what is used where no checkpoint is given."""

    def __post_init__(self) -> None:
        scales = {"sr": (2, 3, 4), "denoise": (1,), "jpeg": (1,), "real": (2, 4), "real-gan": (2, 4)}
        if self.scale not in scales[self.stage]:
            allowed = " or ".join(map(str, scales[self.stage]))
            raise UsageError(f"network.upscale={self.scale}; stage {self.stage} needs {allowed}")
        if self.network.in_chans not in (1, 3):
            raise UsageError(f"network.in_chans={self.network.in_chans}; images have 1 (grey) or 3 (RGB)")
        if self.beginning == "weights" and self.weights is None:
            raise UsageError("beginning=weights needs the name of weights that come with fovea: weights=NAME")
        if self.stage.startswith("real") and self.data.crop < self.data.patch * self.scale:
            raise UsageError(f"data.crop={self.data.crop}; it must hold a patch, {self.data.patch * self.scale} pixels")
        window = self.network.window_size
        if self.data.patch < 1 or self.data.patch % window:
            raise UsageError(f"data.patch={self.data.patch}; it must be a multiple of network.window_size={window}")
        if self.data.sigma < 0 or not 1 <= self.data.quality <= 100:
            given = f"data.sigma={self.data.sigma}, data.quality={self.data.quality}"
            raise UsageError(f"{given}; sigma must be at least 0 and quality 1 to 100")

    @property
    def scale(self) -> int:
        """How much larger the result is than what goes in."""
        return self.network.upscale
