"""PyTorch's FlexAttention under a pattern, by a block mask computed from the pattern's tables.

Compiled on CUDA, where it runs forward and backward. On the CPU it is PyTorch's unfused fallback, which computes every
pair: right but slow, and only forward, so that the planner takes it there for nothing large.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fovea.kernels.backend import Backend, Gradients, Work, matmul_flops, tensor_bytes
from fovea.kernels.problem import Problem
from fovea.patterns.flex import block_mask, mask_mod
from fovea.patterns.states import block_states, padded_key_grid

BLOCK = 128
MATERIALISED = 64 << 20
"""Pairs that may be computed by the unfused fallback."""

TRACED = 250
"""Operations that the unfused fallback runs for a call: it traces the mask each time."""


class Flex(Backend):
    """FlexAttention with an analytic block mask."""

    name = "flex"

    def missing(self) -> str | None:
        try:
            import torch.nn.attention.flex_attention  # noqa: F401
        except ImportError:
            return "this PyTorch has no torch.nn.attention.flex_attention"
        return None

    def refuses(self, problem: Problem) -> str | None:
        if problem.bias:
            return "a relative bias would be gathered for every pair"
        if not problem.batch * problem.queries * problem.keys:
            return "there is nothing to compute"
        if problem.device.type == "cuda":
            width = problem.head_dim
            if problem.dtype == torch.float64:
                return "FlexAttention has no float64 on CUDA"
            if width < 16 or width & (width - 1) or problem.value_dim & (problem.value_dim - 1):
                return f"head dims must be powers of two from 16; they are {width} and {problem.value_dim}"
            return None
        if problem.grad:
            return f"FlexAttention has no backward pass on {problem.device.type}"
        pairs = problem.batch * problem.heads * problem.queries * problem.keys
        if pairs > MATERIALISED:
            return f"on {problem.device.type} FlexAttention computes every pair, here {pairs:,}"
        return None

    def work(self, problem: Problem) -> Work:
        rows, keys = problem.batch * problem.heads, problem.keys + problem.extra
        if problem.device.type != "cuda":
            pairs = rows * problem.queries * keys
            return Work(
                pairs, matmul_flops(problem, pairs), tensor_bytes(problem) + 20.0 * pairs, TRACED, scratch=12.0 * pairs
            )
        visited = rows * _visited(problem) * BLOCK * BLOCK + rows * problem.queries * problem.extra
        return Work(visited, matmul_flops(problem, visited), tensor_bytes(problem), 3 if problem.grad else 1, (BLOCK,))

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
        inputs = (query, key, value, extra_key, extra_value)
        return self._attend(problem, *(None if tensor is None else tensor.detach() for tensor in inputs))  # type: ignore[arg-type]

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
        inputs = [query, key, value] + ([] if extra_key is None or extra_value is None else [extra_key, extra_value])
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            again = self._attend(problem, *leaves, *([None] * (5 - len(leaves))))  # type: ignore[arg-type]
            outputs = [again[0]] + ([] if grad_lse is None else [again[1]])
            given = [grad_out] + ([] if grad_lse is None else [grad_lse.masked_fill(lse == -torch.inf, 0)])
            grads = torch.autograd.grad(outputs, leaves, given)
        dq, dk, dv = grads[:3]
        dek, dev = grads[3:] if len(grads) == 5 else (None, None)
        return dq, dk, dv, None, dek, dev

    def _attend(
        self,
        problem: Problem,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        extra_key: Tensor | None,
        extra_value: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        from torch.nn.attention.flex_attention import AuxRequest, flex_attention

        q = query.flatten(1, -3).transpose(1, 2)
        k, v = _keys(problem, key, extra_key), _keys(problem, value, extra_value)
        attend = _compiled() if problem.device.type == "cuda" else flex_attention
        with warnings.catch_warnings():
            # Known and told by `refuses`: on the CPU nothing is fused.
            warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
            out, aux = attend(
                q, k, v, block_mask=_mask(problem), scale=problem.scale, enable_gqa=problem.group > 1,
                return_aux=AuxRequest(lse=True),
            )  # fmt: skip
        assert aux.lse is not None
        lse = aux.lse.to(problem.compute_dtype)
        unseen = lse == -torch.inf
        out = out.masked_fill(unseen[..., None], 0)
        out, lse = out.transpose(1, 2), lse.transpose(1, 2)
        return out.unflatten(1, problem.query_grid).contiguous(), lse.unflatten(1, problem.query_grid).contiguous()


def _keys(problem: Problem, tensor: Tensor, extra: Tensor | None) -> Tensor:
    """``[B, Hkv, padded keys + extra, C]``."""
    if any(map(any, problem.padding)):
        widths = [width for pair in reversed(problem.padding) for width in pair]
        tensor = functional.pad(tensor, [0, 0, 0, 0, *widths])
    tensor = tensor.flatten(1, -3)
    return (tensor if extra is None else torch.cat([tensor, extra], 1)).transpose(1, 2)


@lru_cache(maxsize=1)
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@lru_cache(maxsize=64)
def _mask(problem: Problem) -> Any:
    """The block mask; extra keys stand behind the others and are seen by all."""
    grids = problem.query_grid, problem.key_grid
    if not problem.extra:
        return block_mask(problem.pattern, *grids, block_size=BLOCK, device=problem.device)
    from torch.nn.attention.flex_attention import create_block_mask

    inside = mask_mod(problem.pattern, *grids, device=problem.device)
    keys = prod(padded_key_grid(problem.pattern, *grids))

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k >= keys) | inside(b, h, q, k.clamp(max=keys - 1))

    lengths = problem.queries, keys + problem.extra
    return create_block_mask(sees, None, None, *lengths, device=problem.device, BLOCK_SIZE=BLOCK)


@lru_cache(maxsize=1024)
def _visited(problem: Problem) -> int:
    """Blocks of queries and keys that are not all masked."""
    states = block_states(problem.pattern, problem.query_grid, problem.key_grid, query_block=BLOCK, key_block=BLOCK)
    return int((states > 0).sum())
