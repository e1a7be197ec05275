"""A problem: everything about one attention call but its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from fovea.patterns.pattern import Grid, Pattern


@dataclass(frozen=True)
class Problem:
    """Pattern, shapes, dtype and device of one call; hashable, so that plans can be remembered.

    ``extra`` is the number of extra keys, ``bias`` whether there is a relative bias, ``grad`` whether a backward pass
    will follow.
    """

    pattern: Pattern
    query_grid: Grid
    key_grid: Grid
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    extra: int
    bias: bool
    scale: float
    dtype: torch.dtype
    device: torch.device
    grad: bool

    @property
    def queries(self) -> int:
        return prod(self.query_grid)

    @property
    def keys(self) -> int:
        return prod(self.key_grid)

    @property
    def lse_dtype(self) -> torch.dtype:
        """Logits, softmax and log-sum-exp are computed in it."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32
