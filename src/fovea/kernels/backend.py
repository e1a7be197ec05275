"""What a backend is: one way to compute the operator, with an honest account of the work it would do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fovea.kernels.problem import Problem

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Gradients of query, key, value, bias, extra_key and extra_value."""


@dataclass(frozen=True)
class Work:
    """What computing a problem costs a backend, in quantities that do not depend on the machine.

    Attributes:
        pairs: (query, key) pairs computed over all batches and heads, padding and masked pairs included.
        flops: floating-point operations of the matrix products over these pairs.
        bytes: bytes moved between memory and the kernels: inputs, outputs, copies, masks.
        launches: calls into kernels.
        tile: the shape of a tile of queries, where there are tiles.
        scratch: bytes of temporary memory at a time.
    """

    pairs: int
    flops: float
    bytes: float
    launches: int
    tile: tuple[int, ...] | None = None
    scratch: float = 0.0


class Backend(ABC):
    """One way to compute ``out`` and ``lse``, and their gradients.

    A pattern that differs from head to head reaches a backend head group by head group, so that ``problem.pattern`` is
    a grid pattern, a block pattern or a union. ``lse`` is float64 for float64 and float32 otherwise.
    """

    name: ClassVar[str]

    def missing(self) -> str | None:
        """Why the backend cannot run on this machine at all, or ``None``."""
        return None

    def refuses(self, problem: Problem) -> str | None:
        """Why the backend does not take this problem, or ``None``."""
        return None

    @abstractmethod
    def work(self, problem: Problem) -> Work:
        """What the problem would cost; forward or backward pass as ``problem.grad`` says."""

    def measured(self, problem: Problem) -> float | None:
        """Seconds that the problem, or one like it, took when the backend measured it on this machine; ``None`` where
        it measures nothing or has not."""
        return None

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
        """``out [B, *query_grid, H, Dv]`` and ``lse [B, *query_grid, H]``, freshly allocated: no views of inputs."""

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
        """Gradients from the inputs, ``out`` and ``lse`` alone; ``None`` for arguments that are ``None``."""


def matmul_flops(problem: Problem, pairs: float) -> float:
    """Floating-point operations of the matrix products over so many pairs: two forward, five backward."""
    if problem.grad:
        return pairs * (6.0 * problem.head_dim + 4.0 * problem.value_dim)
    return pairs * 2.0 * (problem.head_dim + problem.value_dim)


def tensor_bytes(problem: Problem) -> float:
    """Bytes of the operator's arguments and results, each once; of keys that no query sees, their gradients alone."""
    p = problem
    size = p.dtype.itemsize
    query = p.batch * p.queries * p.heads * (p.head_dim + p.value_dim) * size + p.batch * p.queries * p.heads * 4
    keys = p.keys if p.grad else p.seen_keys
    key = p.batch * (keys + p.extra) * p.kv_heads * (p.head_dim + p.value_dim) * size
    return 2.0 * (query + key) if p.grad else float(query + key)
