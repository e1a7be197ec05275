"""What a backend is: one way to compute a problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fovea.kernels.problem import Problem

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Of query, key, value, bias, extra key and extra value."""


@dataclass(frozen=True)
class Work:
    """What a backend would do for a problem.

    Attributes:
        pairs: (query, key) pairs computed over all heads and batch entries, padding included.
        bytes: bytes moved to and from memory besides what stays in caches.
        launches: calls into kernels.
        tile: the tile of queries, where there is one.
    """

    pairs: int
    bytes: int
    launches: int
    tile: tuple[int, ...] | None = None


class Backend(ABC):
    """One way to compute attention under a pattern."""

    name: ClassVar[str]

    def missing(self) -> str | None:
        """Why the backend cannot run on this machine at all, or none."""
        return None

    @abstractmethod
    def refuses(self, problem: Problem) -> str | None:
        """Why the backend does not take this problem, or none."""

    @abstractmethod
    def work(self, problem: Problem) -> Work:
        """What it would do for the problem, for the planner."""

    @abstractmethod
    def forward(
        self,
        problem: Problem,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        extra_key: Tensor | None,
        extra_value: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Output ``[B, *query_grid, H, Dv]`` and log-sum-exp ``[B, *query_grid, H]``."""

    @abstractmethod
    def backward(
        self,
        problem: Problem,
        grad_out: Tensor,
        grad_lse: Tensor | None,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        bias: Tensor | None,
        extra_key: Tensor | None,
        extra_value: Tensor | None,
    ) -> Gradients:
        """Gradients of all inputs, from what the forward pass saved; weights are recomputed."""
