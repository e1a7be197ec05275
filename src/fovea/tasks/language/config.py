"""The configuration of a language model's training or use: which network learns which text, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from fovea.errors import UsageError
from fovea.models.language_config import LanguageConfig, Layer
from fovea.tasks.language.lessons import NeedleTraining, RecallTraining, RelayTraining
from fovea.tasks.optimisation import Hardware, Optimisation


@dataclass(frozen=True)
class TextData:
    """What is read."""

    tokenizer: str = "bytes"
    """``bytes``, a ``tokenizer.json``, or a model folder that has one."""
    vocabulary: int = 0
    """Train a tokenizer of so many tokens on the text, instead; 0 trains none."""
    field: str = "text"
    """Of JSON lines and Parquet: which one holds the document."""
    length: int = 1024
    """Tokens of a sequence."""
    held_out: float = 0.05
    """Share of the tokens, the last ones, that is measured on and not learned from."""
    measured: int = 128
    """Measure at most so many sequences on the way of a training; all of them at its end."""

    def __post_init__(self) -> None:
        if self.length < 2:
            raise UsageError(f"data.length={self.length}; it must be at least 2")
        if not 0 < self.held_out < 1:
            raise UsageError(f"data.held_out={self.held_out}; it must be more than 0 and less than 1")
        if self.measured < 1:
            raise UsageError(f"data.measured={self.measured}; it must be at least 1")
        if self.vocabulary and self.tokenizer != "bytes":
            raise UsageError(f"data.vocabulary={self.vocabulary}; with data.tokenizer={self.tokenizer} it must be 0")


@dataclass(frozen=True)
class TextConfig:
    """One training or use of a language model on text. The network's vocabulary follows from the tokenizer."""

    network: LanguageConfig = field(
        default_factory=lambda: LanguageConfig(257, 128, (Layer("full", {"heads": 4}),) * 4, hidden=256)
    )
    data: TextData = field(default_factory=TextData)
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(
            steps=1000,
            batch=8,
            algorithm="adamw",
            lr=2e-3,
            betas=(0.9, 0.95),
            weight_decay=0.1,
            warmup=50,
            schedule="cosine",
            floor=0.1,
            gradient_clip=1.0,
            ema=0.0,
            validate_every=250,
            checkpoint_every=250,
        )
    )
    hardware: Hardware = field(default_factory=Hardware)
    seed: int = 0


@dataclass(frozen=True)
class RecallConfig(TextConfig):
    """And what is learned in the comparison of recall."""

    training: RecallTraining = field(default_factory=RecallTraining)


@dataclass(frozen=True)
class RelayConfig(TextConfig):
    """And what is learned in the comparison of reach: ``depth`` layers see ``blocks`` blocks of ``size`` tokens."""

    depth: int = 2
    blocks: int = 16
    size: int = 4
    training: RelayTraining = field(default_factory=RelayTraining)

    def __post_init__(self) -> None:
        for name, least in (("depth", 1), ("blocks", 4), ("size", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}={getattr(self, name)}; it must be at least {least}")


@dataclass(frozen=True)
class NeedleConfig(TextConfig):
    """And what is learned in the comparison of searches."""

    training: NeedleTraining = field(default_factory=NeedleTraining)
