"""What is compared in AllMem's demonstration, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from fovea.errors import UsageError
from fovea.tasks.language.config import TextConfig
from fovea.tasks.language.lessons import RecallTraining


@dataclass(frozen=True)
class MemoryConfig(TextConfig):
    """And what is learned in the comparison of memories beside a window."""

    training: RecallTraining = field(
        default_factory=lambda: RecallTraining(taught=((64, 4),), asked=((64, 4),), steps=500, rate=1e-2)
    )
    window: int = 16
    chunk: int = 16
    """Tokens between two updates of a memory."""
    rate: float = 0.5
    """Step size of a memory that tokens start with."""

    def __post_init__(self) -> None:
        if len(self.training.taught) != 1 or self.training.asked != self.training.taught:
            raise UsageError("training.asked and training.taught must be the same one pair of length and pairs")
        if self.window < 1 or self.chunk < 1:
            raise UsageError(f"window={self.window}, chunk={self.chunk}; they must be at least 1")
        if self.rate <= 0:
            raise UsageError(f"rate={self.rate}; it must be above 0")
