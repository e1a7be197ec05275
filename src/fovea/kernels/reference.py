"""The definition: dense scores, a boolean mask, and the gradients written out. Every other backend is held to it."""

from __future__ import annotations

from functools import lru_cache, reduce
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.kernels.backend import Backend, Gradients, Work, matmul_flops, tensor_bytes
from fovea.kernels.problem import Problem
from fovea.patterns import GridPattern, Pattern
from fovea.patterns.pattern import Grid


class Reference(Backend):
    """Softmax over the masked matrix of all logits; memory is quadratic in the tokens.

    With weights ``P``: ``dV = P^T dO``, ``dP = dO V^T``, ``dS = P (dP - delta + dlse)`` where ``delta = sum(dO * O)``,
    ``dQ = scale dS K``, ``dK = scale dS^T Q``, and the bias gathers ``dS`` by offset.
    """

    name: ClassVar[str] = "reference"

    def work(self, problem: Problem) -> Work:
        pairs = problem.batch * problem.heads * problem.queries * (padded_keys(problem) + problem.extra)
        passes = 8 if problem.grad else 5
        traffic = tensor_bytes(problem) + pairs * problem.compute_dtype.itemsize * passes
        scratch = pairs * problem.compute_dtype.itemsize * (4.0 if problem.grad else 3.0)
        return Work(pairs, matmul_flops(problem, pairs), traffic, 40 if problem.grad else 20, scratch=scratch)

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
        q = _queries(problem, query)
        k, v = _keys(problem, key, extra_key), _keys(problem, value, extra_value)
        logits = _logits(problem, q, k, bias)
        lse = logits.logsumexp(-1)
        weights = _weights(logits, lse)
        out = _product(weights, v[:, :, None])
        return _tokens(problem, out).to(problem.dtype), _tokens(problem, lse[..., None]).squeeze(-1)

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
        q, do, o = _queries(problem, query), _queries(problem, grad_out), _queries(problem, out)
        k, v = _keys(problem, key, extra_key)[:, :, None], _keys(problem, value, extra_value)[:, :, None]
        weights = _weights(_logits(problem, q, k.squeeze(2), bias), _queries(problem, lse[..., None]).squeeze(-1))
        delta = (do * o).sum(-1)
        if grad_lse is not None:
            delta = delta - _queries(problem, grad_lse[..., None]).squeeze(-1)
        ds = torch.where(weights == 0, 0, weights * (do @ v.mT - delta[..., None]))
        dv = _product(weights.mT, do).sum(2)
        dq = problem.scale * _product(ds, k)
        dk = problem.scale * _product(ds.mT, q).sum(2)
        dkey, dextra_key = _ungather(problem, dk, key.shape)
        dvalue, dextra_value = _ungather(problem, dv, value.shape)
        dbias = None
        if bias is not None:
            seen = ds[..., : padded_keys(problem)].sum(0).flatten(0, 1).flatten(1)
            index = bias_index(problem.pattern, problem.query_grid, problem.key_grid).to(ds.device)
            dbias = torch.zeros(len(bias), bias[0].numel(), dtype=ds.dtype, device=ds.device)
            dbias = dbias.index_add_(1, index.flatten(), seen).view_as(bias).to(bias.dtype)
        return (
            _tokens(problem, dq).to(query.dtype),
            dkey.to(key.dtype),
            dvalue.to(value.dtype),
            dbias,
            None if extra_key is None else dextra_key.to(extra_key.dtype),
            None if extra_value is None else dextra_value.to(extra_value.dtype),
        )


def padded_keys(problem: Problem) -> int:
    """Number of keys with their zero padding."""
    return reduce(
        lambda total, axis: total * (axis[0] + sum(axis[1])), zip(problem.key_grid, problem.padding, strict=True), 1
    )


@lru_cache(maxsize=64)
def bias_index(pattern: Pattern, query_grid: Grid, key_grid: Grid) -> Tensor:
    """``[queries, padded keys]``: where in the flattened bias table a pair finds its bias; 0 for pairs not seen."""
    assert isinstance(pattern, GridPattern)
    flat = np.zeros((1, 1), np.int64)
    for axis, spans in enumerate(pattern.spans(query_grid, key_grid)):
        low, high = pattern.offsets(axis, query_grid[axis], key_grid[axis])
        key = np.arange(-spans.padding[0], spans.keys + spans.padding[1])
        index = np.where(spans.mask(), (key - spans.position[:, None]) // spans.step - low, 0)
        size = high - low + 1
        grown = flat[:, None, :, None] * size + index[None, :, None, :]
        flat = grown.reshape(grown.shape[0] * grown.shape[1], -1)
    return torch.from_numpy(flat)


def _queries(problem: Problem, tensor: Tensor) -> Tensor:
    """``[B, *grid, H, C] -> [B, Hkv, H / Hkv, N, C]`` in the dtype of computation."""
    tensor = tensor.to(problem.compute_dtype).reshape(
        problem.batch, problem.queries, problem.kv_heads, problem.group, tensor.shape[-1]
    )
    return tensor.permute(0, 2, 3, 1, 4)


def _keys(problem: Problem, tensor: Tensor, extra: Tensor | None) -> Tensor:
    """``[B, *grid, Hkv, C] -> [B, Hkv, padded keys + extra, C]`` in the dtype of computation."""
    pads = [n for axis in reversed(problem.padding) for n in axis]
    tensor = F.pad(tensor.to(problem.compute_dtype), [0, 0, 0, 0, *pads]).flatten(1, -3)
    if extra is not None:
        tensor = torch.cat([tensor, extra.to(problem.compute_dtype)], 1)
    return tensor.transpose(1, 2)


def _ungather(problem: Problem, grad: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The gradient of ``_keys``: that of the keys, and that of the extra keys."""
    grad = grad.transpose(1, 2)
    grown = [n + before + after for n, (before, after) in zip(problem.key_grid, problem.padding, strict=True)]
    keys = grad[:, : padded_keys(problem)].reshape(shape[0], *grown, *shape[-2:])
    for axis, (n, (before, _)) in enumerate(zip(problem.key_grid, problem.padding, strict=True)):
        keys = keys.narrow(axis + 1, before, n)
    return keys.contiguous(), grad[:, padded_keys(problem) :].contiguous()


def _logits(problem: Problem, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """``[B, Hkv, H / Hkv, N, padded keys + extra]``, -inf where a query does not see."""
    logits = problem.scale * (q @ k[:, :, None].mT)
    keys = padded_keys(problem)
    if bias is not None:
        index = bias_index(problem.pattern, problem.query_grid, problem.key_grid).to(q.device)
        table = bias.to(logits.dtype).flatten(1)[:, index]
        logits[..., :keys] += table.view(problem.kv_heads, problem.group, *index.shape)
    mask = torch.from_numpy(problem.pattern.mask(problem.query_grid, problem.key_grid)).to(q.device)
    logits[..., :keys].masked_fill_(~mask, -torch.inf)
    return logits


def _weights(logits: Tensor, lse: Tensor) -> Tensor:
    """``exp(logits - lse)``; zeros for keys that are not seen, also in rows that are not numbers."""
    weights = (logits - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp()
    return weights.masked_fill_(logits == -torch.inf, 0)


def _product(weights: Tensor, rows: Tensor) -> Tensor:
    """``weights @ rows``, in which a row of weight zero adds nothing even where it is not finite."""
    if bool(rows.isfinite().all()):
        return weights @ rows
    return torch.where(weights[..., None] == 0, 0, weights[..., None] * rows[..., None, :, :]).sum(-2)


def _tokens(problem: Problem, tensor: Tensor) -> Tensor:
    """``[B, Hkv, H / Hkv, N, C] -> [B, *grid, H, C]``."""
    tensor = tensor.permute(0, 3, 1, 2, 4)
    return tensor.reshape(problem.batch, *problem.query_grid, problem.heads, tensor.shape[-1])
