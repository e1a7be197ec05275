# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false, reportInvalidTypeForm=false
"""Few queries against many keys: the keys are split over many programs, and their parts joined by log-sum-exp.

Rows of a program are the queries of all heads of a kv head, so that keys are read once (Flash-Decoding).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from fovea.kernels.problem import Problem
from fovea.kernels.triton.call import call
from fovea.kernels.triton.interpreter import interpreted
from fovea.kernels.triton.launch import block, dense_rows, precision
from fovea.kernels.triton.tables import block_lists, on_device, pattern_axis
from fovea.kernels.triton.tile import LN2, LOG2E, load_rows, multiply, store_rows
from fovea.patterns import BlockPattern, GridPattern

ROWS = 64
"""The most queries times heads of a kv head that make one program's rows."""

KEYS = 64
"""Keys of a tile."""

PROGRAMS = 264
"""Programs that fill a device."""

LEAST = 2
"""Tiles of keys that a program walks over at least."""


@triton.jit
def attend_split(
    query, key, value, out, lse, rows, columns, query_strides, key_strides, value_strides,
    entries, share, queries, keys, heads, group, batches, scale,
    ROWS: tl.constexpr, KEYS: tl.constexpr, HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """A program for each share of the key tiles, batch entry and kv head. Strides are of batch, token and head."""
    part = tl.program_id(0)
    kv_heads = heads // group
    batch = tl.program_id(1) // kv_heads
    kv_head = tl.program_id(1) % kv_heads
    row = tl.arange(0, ROWS)
    token = row // group
    head = kv_head * group + row % group
    inside = token < queries
    start = tl.load(rows + token * 4, mask=inside, other=0)
    stop = tl.load(rows + token * 4 + 1, mask=inside, other=0)
    query += batch.to(tl.int64) * query_strides[0]
    key += batch.to(tl.int64) * key_strides[0] + kv_head.to(tl.int64) * key_strides[2]
    value += batch.to(tl.int64) * value_strides[0] + kv_head.to(tl.int64) * value_strides[2]
    at = token.to(tl.int64) * query_strides[1] + head * query_strides[2]
    q = load_rows(query, at, inside, HEAD_DIM, BLOCK_DIM, True)
    logit = scale * LOG2E
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    total = tl.zeros((ROWS, BLOCK_VALUE), tl.float32)
    for number in range(part * share, tl.minimum((part + 1) * share, entries)):
        first = tl.load(columns + number * 2)
        end = tl.load(columns + number * 2 + 1)
        m = first + tl.arange(0, KEYS)
        real = (m >= 0) & (m < tl.minimum(end, keys))
        k = load_rows(key, m.to(tl.int64) * key_strides[1], real, HEAD_DIM, BLOCK_DIM, True)
        v = load_rows(value, m.to(tl.int64) * value_strides[1], real, VALUE_DIM, BLOCK_VALUE, True)
        logits = multiply(q, tl.trans(k), tl.zeros((ROWS, KEYS), tl.float32), PRECISION, WIDEN) * logit
        seen = real[None, :] & (m[None, :] >= start[:, None]) & (m[None, :] < stop[:, None])
        logits = tl.where(seen, logits, float("-inf"))
        higher = tl.maximum(top, tl.max(logits, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(logits - level[:, None])
        shrink = tl.exp2(top - level)
        mass = mass * shrink + tl.sum(weights, 1)
        total = multiply(weights.to(v.dtype), v, total * shrink[:, None], PRECISION, WIDEN)
        top = higher
    blind = mass == 0.0
    total = total / tl.where(blind, 1.0, mass)[:, None]
    place = ((part.to(tl.int64) * batches + batch) * queries + token) * heads + head
    store_rows(out, place * VALUE_DIM, inside, total, VALUE_DIM, BLOCK_VALUE)
    tl.store(lse + place, tl.where(blind, float("-inf"), top + tl.log2(tl.where(blind, 1.0, mass))), mask=inside)


@triton.jit
def join(
    parts, levels, out, lse, shares, tokens,
    VALUE_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr, SHARES: tl.constexpr,
):  # fmt: skip
    """A program for each query and head: the parts' outputs weighted by their lse (in base 2)."""
    row = tl.program_id(0).to(tl.int64)
    share = tl.arange(0, SHARES)
    there = share < shares
    level = tl.load(levels + share * tokens + row, mask=there, other=float("-inf"))
    top = tl.max(level, 0)
    top = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.exp2(level - top)
    mass = tl.sum(weights, 0)
    blind = mass == 0.0
    part = load_rows(parts, (share.to(tl.int64) * tokens + row) * VALUE_DIM, there, VALUE_DIM, BLOCK_VALUE, True)
    total = tl.sum(part * weights[:, None], 0) / tl.where(blind, 1.0, mass)
    lane = tl.arange(0, BLOCK_VALUE)
    tl.store(out + row * VALUE_DIM + lane, total.to(out.dtype.element_ty), mask=lane < VALUE_DIM)
    tl.store(lse + row, tl.where(blind, float("-inf"), (top + tl.log2(tl.where(blind, 1.0, mass))) * LN2))


def decodes(problem: Problem) -> bool:
    """Whether splitting the keys computes the problem, and leaves the device less idle than tiles of queries would."""
    if len(problem.query_grid) != 1 or problem.bias or problem.extra or problem.queries * problem.group > ROWS:
        return False
    pattern = problem.pattern
    if isinstance(pattern, BlockPattern):
        if pattern.table(problem.queries, problem.keys).rows != 1:
            return False
    elif not isinstance(pattern, GridPattern) or problem.spans[0].step != 1 or problem.spans[0].padding != (0, 0):
        return False
    return shares(problem) > 1


def shares(problem: Problem) -> int:
    """Over how many programs the keys of a kv head are split."""
    _, columns = _host_tables(problem.pattern, problem.queries, problem.keys)
    wanted = max(1, PROGRAMS // max(1, problem.batch * problem.kv_heads))
    return max(1, min(wanted, len(columns) // LEAST))


def forward(problem: Problem, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """``out`` and ``lse`` of a problem that :func:`decodes`."""
    query, key, value = (dense_rows(tensor) for tensor in (query, key, value))
    rows, columns = _tables(problem.pattern, problem.queries, problem.keys, problem.device)
    count, entries = shares(problem), len(columns)
    share = -(-entries // count)
    count = -(-entries // share)
    parts = torch.empty((count, *query.shape[:-1], value.shape[-1]), dtype=torch.float32, device=query.device)
    levels = torch.empty(parts.shape[:-1], dtype=torch.float32, device=query.device)
    sizes = {"VALUE_DIM": problem.value_dim, "BLOCK_VALUE": block(problem.value_dim)}
    call(
        attend_split, (count, problem.batch * problem.kv_heads),
        query, key, value, parts, levels, rows, columns, *(tensor.stride()[:3] for tensor in (query, key, value)),
        entries, share, problem.queries, problem.keys, problem.heads, problem.group, problem.batch, problem.scale,
        ROWS=block(problem.queries * problem.group), KEYS=KEYS, HEAD_DIM=problem.head_dim,
        BLOCK_DIM=block(problem.head_dim), **sizes, PRECISION=precision(problem.dtype),
        WIDEN=interpreted() and problem.dtype == torch.bfloat16, num_warps=4, num_stages=3,
    )  # fmt: skip
    out = query.new_empty((*query.shape[:-1], value.shape[-1]))
    lse = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
    tokens = lse.numel()
    call(join, (tokens,), parts, levels, out, lse, count, tokens, **sizes, SHARES=triton.next_power_of_2(count))
    return out, lse


@lru_cache(maxsize=256)
def _host_tables(pattern: GridPattern | BlockPattern, queries: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """What each query sees, ``[queries, 4]``, and the tiles of the keys that some query sees, ``[tiles, 2]``."""
    if isinstance(pattern, BlockPattern):
        size = block(queries)
        _, rows, columns = block_lists(pattern.table(queries, keys), size, KEYS)
        return rows, columns
    walk = pattern_axis(pattern, 0, queries, keys, max(1, queries), KEYS, False)
    found = [origin + KEYS * np.arange(visits) for _, _, _, _, origin, visits, *_ in walk.tiles]
    start = np.concatenate([*found, np.empty(0, np.int64)])
    return walk.rows, np.stack([start, start + KEYS], -1)


@lru_cache(maxsize=256)
def _tables(
    pattern: GridPattern | BlockPattern, queries: int, keys: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    rows, columns = _host_tables(pattern, queries, keys)
    return on_device(rows, device), on_device(columns, device)
