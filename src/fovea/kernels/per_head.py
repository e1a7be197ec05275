"""Patterns that differ from head to head: heads that share a pattern are computed together, group by group."""

from __future__ import annotations

from functools import lru_cache
from typing import overload

import torch
from torch import Tensor

from fovea.kernels.backend import Backend, Gradients
from fovea.kernels.planner import choose
from fovea.kernels.problem import Problem
from fovea.patterns import Pattern, PerHead


def forward(
    problem: Problem,
    backend: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    extra_key: Tensor | None,
    extra_value: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """``out`` and ``lse`` of any problem; the backend is chosen for each group of heads."""
    if not isinstance(problem.pattern, PerHead):
        return choose(problem, backend).forward(problem, query, key, value, bias, extra_key, extra_value)
    out = query.new_empty((*query.shape[:-1], value.shape[-1]))
    lse = query.new_empty(query.shape[:-1], dtype=problem.compute_dtype)
    for part, chosen, heads, kv_heads in groups(problem, backend):
        part_out, part_lse = chosen.forward(
            part,
            _some(query, heads),
            _some(key, kv_heads),
            _some(value, kv_heads),
            None if bias is None else bias[list(heads)],
            _some(extra_key, kv_heads),
            _some(extra_value, kv_heads),
        )
        out[..., list(heads), :] = part_out
        lse[..., list(heads)] = part_lse
    return out, lse


def backward(
    problem: Problem,
    backend: str,
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
    """Gradients of any problem."""
    if not isinstance(problem.pattern, PerHead):
        return choose(problem, backend).backward(
            problem, grad_out, grad_lse, query, key, value, out, lse, bias, extra_key, extra_value
        )
    inputs = (query, key, value, bias, extra_key, extra_value)
    grads = [
        None if tensor is None else torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs
    ]
    for part, chosen, heads, kv_heads in groups(problem, backend):
        rows, kv_rows = list(heads), torch.tensor(kv_heads, device=query.device)
        found = chosen.backward(
            part,
            _some(grad_out, heads),
            None if grad_lse is None else grad_lse[..., rows],
            _some(query, heads),
            _some(key, kv_heads),
            _some(value, kv_heads),
            _some(out, heads),
            lse[..., rows],
            None if bias is None else bias[rows],
            _some(extra_key, kv_heads),
            _some(extra_value, kv_heads),
        )
        for grad, new, name in zip(grads, found, ("query", "key", "value", "bias", "key", "value"), strict=True):
            if grad is None or new is None:
                continue
            if name == "query":
                grad[..., rows, :] = new
            elif name == "bias":
                grad[rows] = new
            else:
                grad.index_add_(grad.ndim - 2, kv_rows, new)
    return tuple(grads)  # type: ignore[return-value]


@lru_cache(maxsize=256)
def groups(problem: Problem, backend: str) -> tuple[tuple[Problem, Backend, tuple[int, ...], tuple[int, ...]], ...]:
    """For each different pattern: its problem, the backend, its heads, and the kv head of each (of each once where
    the heads of a kv head stay together)."""
    assert isinstance(problem.pattern, PerHead)
    members: dict[Pattern, list[int]] = {}
    for head, part in enumerate(problem.pattern.parts):
        members.setdefault(part, []).append(head)
    groups = []
    for part, heads in members.items():
        kv_heads = [head // problem.group for head in heads]
        whole = sorted(set(kv_heads))
        if all(kv_heads.count(kv) == problem.group for kv in whole):
            kv_heads = whole
        smaller = problem.but(pattern=part, heads=len(heads), kv_heads=len(kv_heads))
        groups.append((smaller, choose(smaller, backend), tuple(heads), tuple(kv_heads)))
    return tuple(groups)


@overload
def _some(tensor: Tensor, heads: tuple[int, ...]) -> Tensor: ...
@overload
def _some(tensor: None, heads: tuple[int, ...]) -> None: ...
@overload
def _some(tensor: Tensor | None, heads: tuple[int, ...]) -> Tensor | None: ...
def _some(tensor: Tensor | None, heads: tuple[int, ...]) -> Tensor | None:
    """Some heads of ``[..., heads, C]``; a view where they are neighbours."""
    if tensor is None:
        return None
    if heads == tuple(range(heads[0], heads[0] + len(heads))):
        return tensor[..., heads[0] : heads[0] + len(heads), :]
    return tensor[..., list(heads), :]
