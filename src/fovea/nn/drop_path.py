"""Stochastic depth (arXiv 1603.09382)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, leave out the branch of a whole sample with probability ``rate``.

    What stays is scaled, so that the mean is kept. Shapes: ``[B, ...] -> [B, ...]``, one draw a sample.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate}; it must be at least 0 and below 1")
        self.rate = rate

    def forward(self, branch: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        return branch * branch.new_empty(branch.shape[:1] + (1,) * (branch.ndim - 1)).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def rising_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Drop rates that rise linearly from 0 at the first block to ``rate`` at the last, a list for each stage.

    >>> rising_rates(0.2, (2, 1))
    [[0.0, 0.1], [0.2]]
    """
    last, index = max(sum(depths) - 1, 1), iter(range(sum(depths)))
    return [[rate * next(index) / last for _ in range(depth)] for depth in depths]
