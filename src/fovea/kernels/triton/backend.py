"""The Triton kernels as a backend of the operator."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fovea.kernels.backend import Backend, Gradients, Work, matmul_flops, tensor_bytes
from fovea.kernels.problem import Problem
from fovea.kernels.triton.interpreter import interpreted
from fovea.kernels.triton.layers import why_not
from fovea.kernels.triton.tables import walk
from fovea.kernels.triton.tiling import Tile, predicted
from fovea.patterns import BlockPattern, GridPattern, Union

if TYPE_CHECKING:
    from fovea.kernels.triton.launch import Walks

MOST_DIM = 256
"""Widest heads that fit the registers of a program."""


class Triton(Backend):
    """Our kernels over the tables of grid and block patterns.

    Args:
        tile: the boxes to cut the tokens in; by default what should take least time for each problem.
    """

    name: ClassVar[str] = "triton"

    def __init__(self, tile: Tile | None = None) -> None:
        self.tile = tile

    def missing(self) -> str | None:
        if find_spec("triton") is None:
            return "Triton is not installed; it comes with PyTorch for CUDA (pip install triton)"
        if not torch.cuda.is_available() and not interpreted():
            return "there is no CUDA device (TRITON_INTERPRET=1 runs the kernels on the CPU, slowly, for tests)"
        return None

    def refuses(self, problem: Problem) -> str | None:
        pattern = problem.pattern
        if isinstance(pattern, Union):
            if len(problem.query_grid) != 1:
                return "unions are taken along sequences only"
            if (reason := why_not(pattern, problem.queries, problem.keys)) is not None:
                return reason
        elif not isinstance(pattern, GridPattern | BlockPattern):
            return f"{pattern.name} is no grid pattern, no block pattern and no union"
        if problem.device.type != "cuda" and not (interpreted() and problem.device.type == "cpu"):
            return f"the kernels run on CUDA, not on {problem.device.type}"
        if problem.dtype == torch.float64:
            return "the kernels compute in float32"
        if max(problem.head_dim, problem.value_dim) > MOST_DIM:
            return f"heads are {problem.head_dim} and {problem.value_dim} wide; at most {MOST_DIM} fit a program"
        if not problem.batch * problem.queries * problem.keys:
            return "there is nothing to compute"
        return None

    def work(self, problem: Problem) -> Work:
        tile = self.tile or predicted(problem)
        queries = _walk(problem, tile, inverse=False)
        rows, columns = _places(tile.query_tile), _places(tile.key_tile)
        pairs = queries.visited * rows * columns + queries.programs * rows * (-(-problem.extra // columns) * columns)
        if problem.grad:
            # Each of the two passes computes the weights: 3 and 4 of the 5 products.
            keys = _walk(problem, tile, inverse=True)
            other = keys.visited * _places(tile.grad_query_tile) * _places(tile.grad_key_tile)
            pairs = (pairs + other) // 2
        heads = problem.batch * problem.heads
        pairs *= heads
        flops = matmul_flops(problem, pairs) * (1.4 if problem.grad else 1.0)
        launches = 3 + 2 * problem.bias + bool(problem.extra) if problem.grad else 1
        if interpreted():
            launches += 100 * heads * (queries.programs + queries.visited)
        return Work(pairs, flops, tensor_bytes(problem), launches, tile.query_tile[-len(problem.query_grid) :])

    def measured(self, problem: Problem) -> float | None:
        from fovea.kernels.triton import tuning

        return tuning.remembered(problem)

    def _tile(self, problem: Problem) -> Tile:
        if self.tile is not None or problem.device.type != "cuda":
            return self.tile or predicted(problem)
        from fovea.kernels.triton import tuning

        return tuning.chosen(problem)

    def _walks(self, problem: Problem) -> Walks:
        from fovea.kernels.triton.launch import walks

        return walks(problem, self._tile(problem))

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
        from fovea.kernels.triton import decode, launch

        if self.tile is None and decode.decodes(problem):
            return decode.forward(problem, query, key, value)
        return launch.forward(problem, self._walks(problem), query, key, value, bias, extra_key, extra_value)

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
        from fovea.kernels.triton import launch

        found = self._walks(problem)
        return launch.backward(
            problem, found, grad_out, grad_lse, query, key, value, out, lse, bias, extra_key, extra_value
        )


def _places(tile: tuple[int, ...]) -> int:
    return tile[0] * tile[1] * tile[2]


@lru_cache(maxsize=1)
def _host() -> torch.device:
    return torch.device("cpu")


def _walk(problem: Problem, tile: Tile, *, inverse: bool):
    assert isinstance(problem.pattern, GridPattern | BlockPattern | Union)
    tiles = (tile.grad_query_tile, tile.grad_key_tile) if inverse else (tile.query_tile, tile.key_tile)
    return walk(problem.pattern, problem.query_grid, problem.key_grid, *tiles, inverse, _host())
