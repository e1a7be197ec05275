"""How a network is taught, as plain data: the optimiser, its rate over the steps, averaging, and the hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fovea.errors import UsageError


@dataclass(frozen=True)
class Optimisation:
    """Optimiser, schedule and the intervals of a training.

    The rate at step ``s`` is ``lr`` times a factor that depends on ``s`` alone: it rises linearly over ``warmup``
    steps, then is multiplied by ``decay`` at each of ``milestones``, or follows half a cosine down to ``floor`` at the
    last step.
    """

    steps: int = 1000
    batch: int = 4
    """Examples a step, over all devices together."""
    algorithm: Literal["adam", "adamw"] = "adam"
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: Literal["milestones", "cosine"] = "milestones"
    milestones: tuple[int, ...] = ()
    decay: float = 0.5
    floor: float = 0.0
    gradient_clip: float | None = None
    """Largest norm of the gradient; none leaves it as it is."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is what is validated and saved; 0 keeps no average."""
    validate_every: int = 1000
    checkpoint_every: int = 1000
    report_every: int = 10
    """Steps between two lines of training loss."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every", "checkpoint_every", "report_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"optimisation.{name}={getattr(self, name)}; it must be at least 1")
        if self.lr < 0 or not math.isfinite(self.lr):
            raise UsageError(f"optimisation.lr={self.lr}; it must be a number >= 0")
        if not 0 <= self.ema < 1:
            raise UsageError(f"optimisation.ema={self.ema}; it must be in [0, 1)")
        for name in ("warmup", "weight_decay"):
            if getattr(self, name) < 0:
                raise UsageError(f"optimisation.{name}={getattr(self, name)}; it must be at least 0")
        for name in ("decay", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"optimisation.{name}={getattr(self, name)}; it must be 0 to 1")
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise UsageError(f"optimisation.gradient_clip={self.gradient_clip}; it must be above 0, or none")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"optimisation.betas={self.betas}; each must be in [0, 1)")

    def rate(self, step: int) -> float:
        """The learning rate of step ``step``, the first being 1."""
        factor = min(1.0, step / self.warmup) if self.warmup else 1.0
        if self.schedule == "milestones":
            factor *= self.decay ** sum(step > milestone for milestone in self.milestones)
        else:
            progress = min(1.0, step / self.steps)
            factor *= self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
        return self.lr * factor

    def averaging(self, step: int) -> float:
        """How much of the average stays at ``step``: ``ema``, but less at first, so that the start is forgotten."""
        return min(self.ema, (1 + step) / (10 + step))


@dataclass(frozen=True)
class Hardware:
    """Where and how precisely to compute, in the words of Lightning."""

    accelerator: str = "auto"
    devices: int | str = 1
    strategy: str = "auto"
    """``auto``, ``ddp``, ``fsdp``, ..."""
    precision: str = "32-true"
    """``32-true``, ``bf16-mixed``, ``16-mixed``, ..."""
    workers: int = 0
    """Processes that prepare examples; 0 prepares them in the training process."""
