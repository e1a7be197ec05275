"""The cyclical learning rate of LoLA-SpecViT: cosines with warm restarts, higher for the adapters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fovea.errors import UsageError


@dataclass(frozen=True)
class CyclicalSchedule:
    """Half a cosine from the base rate to ``floor``, again and again, each time ``growth`` times as long.

    ``rate = floor + (lr - floor) f k`` with ``f = (1 + cos(pi t / T)) / 2``: ``t`` is the step inside the present cycle
    of ``T`` steps, ``k`` is ``adapter_factor`` for adapters and 1 for other weights. (The class of the published code
    computes this; its training script uses another one.)

    Attributes:
        first: steps of the first cycle.
    """

    first: int = 10
    growth: int = 2
    floor: float = 1e-6
    adapter_factor: float = 2.0

    def __post_init__(self) -> None:
        if self.first < 1 or self.growth < 1:
            raise UsageError(f"cycle of {self.first} steps that grows {self.growth} times; both must be at least 1")

    def factor(self, step: int) -> float:
        """``f`` of a step; the first is 0.

        >>> [CyclicalSchedule(first=2).factor(step) for step in (0, 2, 6)]
        [1.0, 1.0, 1.0]
        """
        length = self.first
        while step >= length:
            step, length = step - length, length * self.growth
        return (1 + math.cos(math.pi * step / length)) / 2

    def rate(self, lr: float, step: int, *, adapter: bool = False) -> float:
        """The learning rate of a step, the first being 0, of weights whose base rate is ``lr``."""
        return self.floor + (lr - self.floor) * self.factor(step) * (self.adapter_factor if adapter else 1.0)
