"""The definition: dense scores, a boolean mask, a softmax. Quadratic in memory; the truth that every test holds to."""

from __future__ import annotations

from functools import lru_cache, reduce

import numpy as np
import torch
from torch import Tensor

from fovea.kernels.backend import Backend, Gradients, Work
from fovea.kernels.problem import Problem
from fovea.patterns import GridPattern
from fovea.patterns.pattern import Grid


def pad_keys(problem: Problem, tensor: Tensor) -> Tensor:
    """``[B, *key_grid, Hkv, D]`` with the pattern's zero keys around the grid."""
    padding = problem.pattern.padding(problem.query_grid, problem.key_grid)
    if not any(map(any, padding)):
        return tensor
    widths = [0, 0, 0, 0] + [width for pair in reversed(padding) for width in pair]
    return torch.nn.functional.pad(tensor, widths)


def crop_keys(problem: Problem, tensor: Tensor) -> Tensor:
    """The inverse of :func:`pad_keys`."""
    padding = problem.pattern.padding(problem.query_grid, problem.key_grid)
    for axis, ((before, _), size) in enumerate(zip(padding, problem.key_grid, strict=True)):
        tensor = tensor.narrow(axis + 1, before, size)
    return tensor


@lru_cache(maxsize=32)
def _mask(problem: Problem) -> Tensor:
    """``[H or 1, queries, padded keys]``."""
    mask = torch.from_numpy(problem.pattern.mask(problem.query_grid, problem.key_grid))
    return (mask if mask.ndim == 3 else mask[None]).to(problem.device)


@lru_cache(maxsize=32)
def bias_index(pattern: GridPattern, query_grid: Grid, key_grid: Grid) -> Tensor:
    """``[queries, padded keys]``: where in the flattened bias table each pair looks; masked pairs look anywhere."""
    shape = pattern.bias_shape(query_grid, key_grid)
    tables = []
    for axis, spans in enumerate(pattern.spans(query_grid, key_grid)):
        low, high = pattern.offsets(axis, query_grid[axis], key_grid[axis])
        key = np.arange(-spans.padding[0], spans.keys + spans.padding[1])
        tables.append(np.clip((key - spans.position[:, None]) // spans.step, low, high) - low)

    def join(flat: np.ndarray, axis: int) -> np.ndarray:
        table = tables[axis]
        joined = flat[:, None, :, None] * shape[axis] + table[None, :, None, :]
        return joined.reshape(flat.shape[0] * table.shape[0], -1)

    return torch.from_numpy(reduce(join, range(len(tables)), np.zeros((1, 1), np.int64)))


class Reference(Backend):
    """Dense attention with a mask, in at least float32."""

    name = "reference"

    def refuses(self, problem: Problem) -> str | None:
        return None

    def work(self, problem: Problem) -> Work:
        pairs = problem.batch * problem.heads * problem.queries * (problem.keys + problem.extra)
        return Work(pairs=pairs, bytes=pairs * 16, launches=12)

    def _logits(
        self, problem: Problem, query: Tensor, key: Tensor, bias: Tensor | None, extra_key: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query and key as ``[B, H, tokens, D]``, and masked logits ``[B, H, queries, keys + extra]``."""
        groups = problem.heads // problem.kv_heads
        query, key = self._heads_first(problem, query), self._keys(problem, key, extra_key, groups)
        logits = query @ key.mT * problem.scale
        window = logits[..., : logits.shape[-1] - problem.extra]
        if bias is not None:
            assert isinstance(problem.pattern, GridPattern)
            index = bias_index(problem.pattern, problem.query_grid, problem.key_grid).to(bias.device)
            window += bias.to(logits.dtype).flatten(1)[:, index]
        window.masked_fill_(~_mask(problem), -torch.inf)
        return query, key, logits

    def _heads_first(self, problem: Problem, tensor: Tensor) -> Tensor:
        return tensor.flatten(1, -3).transpose(1, 2).to(problem.lse_dtype)

    def _keys(self, problem: Problem, tensor: Tensor, extra: Tensor | None, groups: int) -> Tensor:
        joined = pad_keys(problem, tensor).flatten(1, -3)
        if extra is not None:
            joined = torch.cat([joined, extra], 1)
        return joined.transpose(1, 2).to(problem.lse_dtype).repeat_interleave(groups, 1)

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
        _, _, logits = self._logits(problem, query, key, bias, extra_key)
        lse = torch.logsumexp(logits, -1) if logits.shape[-1] else logits.new_full(logits.shape[:-1], -torch.inf)
        weights = torch.exp(logits - lse.masked_fill(lse == -torch.inf, 0)[..., None])
        value = self._keys(problem, value, extra_value, problem.heads // problem.kv_heads)
        out = _product(weights, value).transpose(1, 2).unflatten(1, problem.query_grid)
        return out.to(problem.dtype), lse.transpose(1, 2).unflatten(1, problem.query_grid).contiguous()

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
        groups = problem.heads // problem.kv_heads
        q, k, logits = self._logits(problem, query, key, bias, extra_key)
        v = self._keys(problem, value, extra_value, groups)
        do, o = self._heads_first(problem, grad_out), self._heads_first(problem, out)
        lse = lse.flatten(1, -2).transpose(1, 2)[..., None]
        weights = torch.exp(logits - lse.masked_fill(lse == -torch.inf, 0))
        delta = (do * o).sum(-1, keepdim=True)
        if grad_lse is not None:
            delta = delta - grad_lse.flatten(1, -2).transpose(1, 2)[..., None]
        scores = weights * (do @ v.mT - delta)
        scores = scores.masked_fill(logits == -torch.inf, 0)

        def split(grad: Tensor) -> tuple[Tensor, Tensor]:
            grad = grad.unflatten(1, (problem.kv_heads, groups)).sum(2).transpose(1, 2)
            window, extra = grad.split([grad.shape[1] - problem.extra, problem.extra], 1)
            padding = problem.pattern.padding(problem.query_grid, problem.key_grid)
            padded = [n + sum(pair) for n, pair in zip(problem.key_grid, padding, strict=True)]
            own = crop_keys(problem, window.unflatten(1, padded))
            return own.to(problem.dtype, copy=True), extra.to(problem.dtype, copy=True)

        dq = (scores @ k * problem.scale).transpose(1, 2).unflatten(1, problem.query_grid).to(problem.dtype)
        dk, dek = split(scores.mT @ q * problem.scale)
        dv, dev = split(weights.mT @ do)
        dbias = None
        if bias is not None:
            assert isinstance(problem.pattern, GridPattern)
            index = bias_index(problem.pattern, problem.query_grid, problem.key_grid).to(bias.device).flatten()
            window = scores[..., : scores.shape[-1] - problem.extra].sum(0).flatten(1)
            dbias = torch.zeros_like(bias, dtype=window.dtype).flatten(1).index_add_(1, index, window)
            dbias = dbias.view_as(bias).to(bias.dtype)
        return dq, dk, dv, dbias, None if extra_key is None else dek, None if extra_value is None else dev


def _product(weights: Tensor, value: Tensor) -> Tensor:
    """``weights @ value``, where a value that is not finite reaches only the queries that see it."""
    out = weights @ value
    if torch.isfinite(out).all():
        return out
    seen = torch.where(weights[..., None] != 0, weights[..., None] * value[..., None, :, :], 0)
    return seen.sum(-2)
