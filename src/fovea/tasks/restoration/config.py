"""The configuration of an image restoration: which network learns what, from which images, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fovea.errors import UsageError
from fovea.tasks.optimisation import Hardware, Optimisation

Stage = Literal["sr", "denoise", "jpeg", "real", "real-gan"]


@dataclass(frozen=True)
class Network:
    """HAT's constructor words (the official ones); scale and output branch follow from the task.

    ``conv_scale=0`` takes the channel-attention branch out of the sum and ``overlap_ratio=0`` makes the overlapping
    attention an ordinary window attention, so the two together leave the Swin baseline with as many weights.
    """

    embed_dim: int = 180
    depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    num_heads: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    window_size: int = 16
    compress_ratio: int = 3
    squeeze_factor: int = 30
    conv_scale: float = 0.01
    overlap_ratio: float = 0.5
    mlp_ratio: float = 2.0
    drop_path_rate: float = 0.1


@dataclass(frozen=True)
class Data:
    """What is restored from what."""

    source: Literal["photographs", "textures", "both"] = "both"
    """Training images when no folder is given: scikit-image's photographs, generated textures, or the two in turn."""
    held_out: tuple[str, ...] = ("coffee", "chelsea")
    """Photographs that are never trained on; they are what is validated."""
    patch: int = 64
    """Side of the low-quality training patch, in pixels; for restoration without upscaling the image's own."""
    validation: Path | None = None
    """Folder of images that are validated instead of the photographs held out."""
    sigma: float = 25.0
    """Denoising: standard deviation of the Gaussian noise, in levels of 255."""
    quality: int = 40
    """JPEG artefacts: the quality that images are compressed with."""
    grey: bool = False
    """Work on luminance alone (denoising, JPEG)."""


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
    scale: int = 2
    network: Network = field(default_factory=Network)
    data: Data = field(default_factory=Data)
    optimisation: Optimisation = field(default_factory=Optimisation)
    adversary: Adversary = field(default_factory=Adversary)
    hardware: Hardware = field(default_factory=Hardware)
    seed: int = 0

    def __post_init__(self) -> None:
        scales = {"sr": (2, 3, 4), "denoise": (1,), "jpeg": (1,), "real": (4, 2), "real-gan": (4, 2)}
        if self.stage in scales and self.scale not in scales[self.stage]:
            allowed = " or ".join(map(str, scales[self.stage]))
            raise UsageError(f"scale={self.scale}; stage {self.stage} needs {allowed}")
        window = self.network.window_size
        if self.data.patch % window:
            raise UsageError(f"data.patch={self.data.patch}; it must be a multiple of network.window_size={window}")
        if self.stage == "real-gan" and self.adversary.perceptual is None:
            raise UsageError(
                "stage real-gan compares features of VGG19, whose weights do not come with fovea: "
                "set adversary.perceptual=FILE (a state dict), or adversary.perceptual=none to do without"
            )

    @property
    def channels(self) -> int:
        """Colour channels the network reads and writes."""
        return 1 if self.data.grey else 3
