"""The configuration of a hyperspectral classification: which network learns which pixels of which scene, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fovea.errors import UsageError, unknown
from fovea.models.lola_specvit_config import LoLASpecViTConfig
from fovea.tasks.optimisation import Hardware, Optimisation

Kind = Literal["random", "disjoint"]
Trained = Literal["all", "adapters", "adapters+head"]
Compared = Literal["svm", "cnn", "no-attention", "no-lora", "gated", "adapters", "official", "pretrained"]


@dataclass(frozen=True)
class Data:
    """Which scene, and what in its files is meant. Without a file a scene is generated."""

    key: str | None = None
    """Name of the cube in its file; found by its three axes unless given."""
    label_key: str | None = None
    """Name of the label map in its file; an array of three axes is read as abundances, whose largest is the class."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers."""
    noise: float = 0.0
    """Noise added to the spectra, in units of each band's deviation over the scene."""
    side: int = 72
    """Generated scene: rows and columns."""
    fields: int = 48
    """Generated scene: how many fields."""
    kinds: int = 8
    """Generated scene: how many classes."""
    bands: int = 96
    """Generated scene: how many bands."""


@dataclass(frozen=True)
class Features:
    """How spectra become what the network reads; ``network.in_channels`` says how many components."""

    method: Literal["pca", "bands"] = "pca"
    fit: Literal["training", "all"] = "training"
    """Fit the components to the pixels that are learned from, or to all of the scene as the published code does."""
    whiten: bool = True
    scaled: bool = True
    """Give every band the same variance first."""
    patches: Literal["scene", "patch"] = "scene"
    """Keep the level of the scene, or standardise each channel of each patch as the published code does."""


@dataclass(frozen=True)
class Split:
    """Which labelled pixels are learned from."""

    kinds: tuple[Kind, ...] = ("random", "disjoint")
    """``random`` pixels, as is customary, or pixels of ``disjoint`` blocks; the first is what the checkpoint is of."""
    train: float = 0.1
    """Share of the labelled pixels that is learned from, validation included."""
    validation: float = 0.1
    """Share of these that is held back to validate on. Tested pixels never choose anything."""
    block: int = 20
    """Disjoint: side of the blocks, in pixels."""
    area: float = 0.2
    """Disjoint: share of the labelled pixels that the blocks to learn in hold."""

    def __post_init__(self) -> None:
        if not self.kinds or any(kind not in get_args(Kind) for kind in self.kinds):
            raise UsageError(f"split.kinds={self.kinds}; each must be {' or '.join(get_args(Kind))}")
        if len(set(self.kinds)) < len(self.kinds):
            raise UsageError(f"split.kinds={self.kinds}; each at most once")
        for name, low in (("train", 0.0), ("validation", -1e-9), ("area", 0.0)):
            if not low < getattr(self, name) < 1:
                raise UsageError(f"split.{name}={getattr(self, name)}; it must be a share between 0 and 1")
        if self.block < 1:
            raise UsageError(f"split.block={self.block}; it must be at least 1")


@dataclass(frozen=True)
class SpectralConfig:
    """One training or use of a network for hyperspectral pixels."""

    network: LoLASpecViTConfig = field(default_factory=LoLASpecViTConfig)
    data: Data = field(default_factory=Data)
    features: Features = field(default_factory=Features)
    split: Split = field(default_factory=Split)
    optimisation: Optimisation = field(default_factory=Optimisation)
    hardware: Hardware = field(default_factory=Hardware)
    model: Literal["lola-specvit", "cnn"] = "lola-specvit"
    """``cnn`` is the front end alone with a linear head."""
    trained: Trained = "all"
    """What learns: everything, only the adapters as in the published code, or these and the head."""
    cycle: int | None = None
    """Steps of the first cycle of the cyclical rate, each further one twice as long; none takes the rate of
    ``optimisation``."""
    smoothing: float = 0.1
    """Of the labels in the cross entropy."""
    turns: bool = True
    """Show the patches turned by quarters and mirrored."""
    average_turns: bool = False
    """Classify by the mean over the eight ways to turn and mirror a patch; takes eight times as long."""
    compare: tuple[Compared, ...] = ("svm",)
    """What is trained beside it on the same pixels."""
    svm_c: float = 100.0
    """Penalty of the support vector machine."""
    seeds: int = 1
    """How many splits and trainings, from ``seed`` on; figures are means with deviations over them."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"seeds={self.seeds}; it must be at least 1")
        if not 0 <= self.smoothing < 1:
            raise UsageError(f"smoothing={self.smoothing}; it must be at least 0 and below 1")
        for name in self.compare:
            if name not in get_args(Compared):
                raise unknown("method to compare with", name, get_args(Compared))
        if self.trained != "all" and (self.network.adapter == "none" or self.model == "cnn"):
            raise UsageError(f"trained={self.trained}; the network has no adapters (network.lora={self.network.lora})")
        if self.cycle is not None and self.cycle < 1:
            raise UsageError(f"cycle={self.cycle}; it must be at least 1 step, or none")

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.network.spatial_size
