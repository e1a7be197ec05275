"""Attention in tiles, in plain PyTorch: gather a tile's keys, fused dense attention, put the rows back.

Memory is linear in the tokens: tiles are computed in chunks whose copies of keys and values are bounded. The backward
pass recomputes the weights of each tile; overlapping tiles add to the gradients of keys one after the other, so that it
is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from fovea.kernels import dense
from fovea.kernels.backend import Backend, Gradients, Work, matmul_flops, tensor_bytes
from fovea.kernels.problem import Problem
from fovea.kernels.schedule import Call, Edges, Schedule, Summary, candidates, is_plain_causal, schedule
from fovea.patterns import BlockPattern, GridPattern, PerHead
from fovea.patterns.pattern import Grid

CHUNK_BYTES = 8 << 20
"""Bound of the keys and values copied at a time."""

# What choosing a tile weighs against each other, in seconds: only the ratios matter.
_SECONDS_PER_FLOP = 1 / 60e9
_SECONDS_PER_BYTE = 1 / 6e9
_SECONDS_PER_CALL = 100e-6
_SECONDS_PER_RUN = 10e-6


class Tiled(Backend):
    """Tiles of queries against the union box of their keys, by fused dense attention.

    Args:
        tile: queries of a tile along each axis of grid patterns; by default what should cost least for each problem.
    """

    name = "tiled"

    def __init__(self, tile: Grid | None = None) -> None:
        self.tile = tile

    def refuses(self, problem: Problem) -> str | None:
        if isinstance(problem.pattern, PerHead):
            return "heads with patterns of their own are computed one pattern at a time"
        return None

    def work(self, problem: Problem) -> Work:
        cuts, pairs, gathered, classes, tiles = _choice(problem, self.tile)
        row = problem.batch * problem.kv_heads * (problem.head_dim + problem.value_dim) * problem.dtype.itemsize
        computed = problem.batch * problem.heads * (pairs + problem.queries * problem.extra)
        chunks = max(classes, -(-gathered * row // CHUNK_BYTES))
        return Work(
            pairs=computed,
            flops=matmul_flops(problem, computed),
            bytes=tensor_bytes(problem) + (3 if problem.grad else 2) * gathered * row,
            launches=chunks + (2 * tiles // 8 if problem.grad else 0),
            tile=_tile(problem, cuts),
            scratch=float(min(gathered * row, 2 * CHUNK_BYTES)),
        )

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
        plan = schedule(problem, _choice(problem, self.tile)[0])
        q = query.flatten(1, -3)
        k, v = (_pad(problem, tensor).flatten(1, -3) for tensor in (key, value))
        out = q.new_zeros(*q.shape[:-1], problem.value_dim)
        lse = q.new_full(q.shape[:-1], -torch.inf, dtype=problem.compute_dtype)
        first = plan.disjoint
        for tiles in _chunks(problem, plan, bias):
            part, part_lse = dense.forward(*tiles.gather(q, k, v), tiles.mask, problem.scale, causal=tiles.call.causal)
            tiles.join(out, lse, part, part_lse, first=first)
        if extra_key is not None and extra_value is not None and problem.extra:
            for rows in _row_chunks(problem):
                part, part_lse = dense.forward(
                    _heads_first(q[:, rows], problem.kv_heads),
                    extra_key.transpose(1, 2),
                    extra_value.transpose(1, 2),
                    None,
                    problem.scale,
                )
                _merge_into(
                    out[:, rows], lse[:, rows], _heads_last(part, problem.heads), _lse_last(part_lse, problem.heads)
                )
        return out.unflatten(1, problem.query_grid), lse.unflatten(1, problem.query_grid)

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
        plan = schedule(problem, _choice(problem, self.tile)[0])
        q, do, o = (tensor.flatten(1, -3) for tensor in (query, grad_out, out))
        k, v = (_pad(problem, tensor).flatten(1, -3) for tensor in (key, value))
        # A row that sees nothing has weights exp(-inf - lse) = 0 for any finite lse.
        lse = lse.flatten(1, -2).nan_to_num(neginf=0.0)
        dlse = None if grad_lse is None else grad_lse.flatten(1, -2)
        accumulate = problem.compute_dtype
        dq = torch.zeros_like(q, memory_format=torch.contiguous_format)
        dk, dv = (torch.zeros_like(t, dtype=accumulate, memory_format=torch.contiguous_format) for t in (k, v))
        dbias = None if bias is None else torch.zeros_like(bias, dtype=accumulate).flatten(1)
        for tiles in _chunks(problem, plan, bias):
            grad_q, grad_k, grad_v, scores = dense.backward(
                tiles.rows(do),
                None if dlse is None else tiles.row_values(dlse),
                *tiles.gather(q, k, v),
                tiles.rows(o),
                tiles.row_values(lse),
                tiles.mask,
                problem.scale,
                causal=tiles.call.causal,
                scores=bias is not None,
            )
            tiles.add_rows(dq, grad_q)
            tiles.add_keys(dk, grad_k)
            tiles.add_keys(dv, grad_v)
            if dbias is not None and scores is not None:
                tiles.add_bias(dbias, scores)
        dek = dev = None
        if extra_key is not None and extra_value is not None:
            dek, dev = (torch.zeros_like(t, dtype=accumulate) for t in (extra_key, extra_value))
            for rows in _row_chunks(problem) if problem.extra else ():
                grad_q, grad_k, grad_v, _ = dense.backward(
                    _heads_first(do[:, rows], problem.kv_heads),
                    None if dlse is None else _values_first(dlse[:, rows], problem.kv_heads),
                    _heads_first(q[:, rows], problem.kv_heads),
                    extra_key.transpose(1, 2),
                    extra_value.transpose(1, 2),
                    _heads_first(o[:, rows], problem.kv_heads),
                    _values_first(lse[:, rows], problem.kv_heads),
                    None,
                    problem.scale,
                )
                dq[:, rows] += _heads_last(grad_q, problem.heads)
                dek += grad_k.transpose(1, 2)
                dev += grad_v.transpose(1, 2)
            dek, dev = dek.to(extra_key.dtype), dev.to(extra_value.dtype)
        grid = plan.key_grid
        dk, dv = (_crop(problem, t.unflatten(1, grid)).to(problem.dtype) for t in (dk, dv))
        if bias is not None and dbias is not None:
            dbias = dbias.view_as(bias).to(bias.dtype)
        return dq.unflatten(1, problem.query_grid), dk, dv, dbias, dek, dev


class _Tiles:
    """A chunk of a call's tiles, as views and copies of the problem's tensors."""

    def __init__(self, problem: Problem, plan: Schedule, call: Call, begin: int, end: int, mask: Tensor | None) -> None:
        self.problem, self.plan, self.call, self.begin, self.mask = problem, plan, call, begin, mask
        device = problem.device
        self.query = torch.from_numpy(call.query[begin:end]).to(device)
        self.key = torch.from_numpy(call.key[begin:end]).to(device)
        self.runs = None if call.runs is None else call.runs[begin:end]
        self.blind = None
        if call.mask is not None and not (rows := call.mask.any(1)).all():
            self.blind = torch.from_numpy(~rows).to(device)

    def gather(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.rows(q), self._keys(k), self._keys(v)

    def _keys(self, tensor: Tensor) -> Tensor:
        """``[B, tokens, Hkv, D] -> [B * tiles, Hkv, keys, D]``; causal calls need a kv head for each head."""
        taken = self._take(tensor, self.key).transpose(1, 2)
        return taken.repeat_interleave(self.problem.group, 1) if self.call.causal else taken

    def rows(self, tensor: Tensor) -> Tensor:
        """``[B, tokens, H, D] -> [B * tiles, Hkv, groups * queries, D]``."""
        return _heads_first(self._take(tensor, self.query), self._rows_of)

    def row_values(self, tensor: Tensor) -> Tensor:
        """``[B, tokens, H] -> [B * tiles, Hkv, groups * queries]``."""
        return _values_first(self._take(tensor, self.query), self._rows_of)

    @property
    def _rows_of(self) -> int:
        """Heads that do not share rows: fused causal attention takes rows of one query head only."""
        return self.problem.heads if self.call.causal else self.problem.kv_heads

    def _take(self, tensor: Tensor, index: Tensor) -> Tensor:
        taken = tensor if self._whole(index, tensor) else tensor.index_select(1, index.flatten())
        return taken.unflatten(1, index.shape).flatten(0, 1)

    def _whole(self, index: Tensor, tensor: Tensor) -> bool:
        """Whether the index lists all tokens in order."""
        return self.call.causal or (
            index.shape[0] == 1 and index.shape[1] == tensor.shape[1] and len(self.plan.calls) == 1
        )

    def _put(self, part: Tensor) -> Tensor:
        """``[B * tiles, queries, ...] -> [B, tiles * queries, ...]``."""
        return part.unflatten(0, (self.problem.batch, -1)).flatten(1, 2)

    def join(self, out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor, *, first: bool) -> None:
        part, part_lse = _heads_last(part, self.problem.heads), _lse_last(part_lse, self.problem.heads)
        if self.blind is not None:
            part = part.masked_fill(self.blind[:, None, None], 0)
            part_lse = part_lse.masked_fill(self.blind[:, None], -torch.inf)
        part, part_lse, index = self._put(part), self._put(part_lse), self.query.flatten()
        if not first:
            before, before_lse = out.index_select(1, index), lse.index_select(1, index)
            _merge_into(before, before_lse, part, part_lse)
            part, part_lse = before, before_lse
        out.index_copy_(1, index, part)
        lse.index_copy_(1, index, part_lse)

    def add_rows(self, total: Tensor, grad: Tensor) -> None:
        grad, index = self._put(_heads_last(grad, self.problem.heads)), self.query.flatten()
        if not self.plan.disjoint:
            grad = grad + total.index_select(1, index)
        total.index_copy_(1, index, grad)

    def add_keys(self, total: Tensor, grad: Tensor) -> None:
        if self.call.causal:
            grad = grad.unflatten(1, (-1, self.problem.group)).sum(2)
        grad = grad.transpose(1, 2)  # [B * tiles, keys, Hkv, D]
        if self.runs is None:
            grad, index = self._put(grad).to(total.dtype), self.key.flatten()
            total.index_copy_(1, index, grad + total.index_select(1, index))
            return
        grid = total.unflatten(1, self.plan.key_grid)
        grad = grad.unflatten(0, (self.problem.batch, -1))
        for tile, runs in enumerate(self.runs):
            for keys, box in runs:
                where = grid[(slice(None), *box)]
                where += grad[:, tile, keys].reshape(where.shape)

    def add_bias(self, total: Tensor, scores: Tensor) -> None:
        """``scores: [B * tiles, Hkv, groups * queries, keys]``."""
        assert self.call.bias is not None
        per_head = scores.sum(0).unflatten(1, (-1, self.call.query.shape[1])).flatten(0, 1).flatten(1)
        total.index_add_(1, torch.from_numpy(self.call.bias).to(total.device).flatten(), per_head)


def _pad(problem: Problem, tensor: Tensor) -> Tensor:
    """``[B, *key_grid, Hkv, D]`` with the pattern's zero keys around the grid."""
    if not any(map(any, problem.padding)):
        return tensor
    return functional.pad(tensor, [0, 0, 0, 0, *(width for pair in reversed(problem.padding) for width in pair)])


def _crop(problem: Problem, tensor: Tensor) -> Tensor:
    """The inverse of :func:`_pad`."""
    for axis, ((before, _), size) in enumerate(zip(problem.padding, problem.key_grid, strict=True)):
        tensor = tensor.narrow(axis + 1, before, size)
    return tensor.contiguous()


def _chunks(problem: Problem, plan: Schedule, bias: Tensor | None) -> Iterator[_Tiles]:
    row = (problem.head_dim + problem.value_dim) * problem.kv_heads * problem.dtype.itemsize * problem.batch
    scores = problem.heads * problem.batch * problem.compute_dtype.itemsize if bias is not None and problem.grad else 0
    for call in plan.calls:
        if not problem.batch * call.query.size * call.key.size:
            continue
        each = call.key.shape[1] * row + call.query.size // len(call.query) * call.key.shape[1] * scores
        step = max(1, CHUNK_BYTES // max(1, each))
        mask = _mask(problem, call, bias)
        for begin in range(0, len(call.query), step):
            yield _Tiles(problem, plan, call, begin, begin + step, mask)


def _mask(problem: Problem, call: Call, bias: Tensor | None) -> Tensor | None:
    """What is added to the logits ``[1, Hkv or 1, groups * queries, keys]``: the bias, and -inf where unseen."""
    groups = problem.heads // problem.kv_heads
    total = None
    if bias is not None and call.bias is not None:
        index = torch.from_numpy(call.bias).to(problem.device)
        total = bias.flatten(1)[:, index].unflatten(0, (problem.kv_heads, groups)).flatten(1, 2)[None].to(problem.dtype)
    if call.mask is not None:
        seen = torch.from_numpy(call.mask).to(problem.device).repeat(groups, 1)
        if total is None:
            total = torch.zeros(seen.shape, dtype=problem.dtype, device=problem.device)[None, None]
        total = total.masked_fill(~seen, -torch.inf)
    return total


def _heads_first(tensor: Tensor, kv_heads: int) -> Tensor:
    """``[n, T, H, D] -> [n, Hkv, groups * T, D]``: the query heads of one kv head stand below each other."""
    if tensor.shape[2] == kv_heads:
        return tensor.transpose(1, 2)
    return tensor.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)


def _values_first(tensor: Tensor, kv_heads: int) -> Tensor:
    return _heads_first(tensor[..., None], kv_heads)[..., 0]


def _heads_last(tensor: Tensor, heads: int) -> Tensor:
    """``[n, Hkv, groups * T, D] -> [n, T, H, D]``, the inverse of :func:`_heads_first`."""
    kv_heads = tensor.shape[1]
    if heads == kv_heads:
        return tensor.transpose(1, 2)
    return tensor.unflatten(2, (heads // kv_heads, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def _lse_last(tensor: Tensor, heads: int) -> Tensor:
    return _heads_last(tensor[..., None], heads)[..., 0]


def _merge_into(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
    """Join a further part into ``out`` and ``lse``, in place."""
    total = torch.logaddexp(lse, part_lse)
    finite = total.nan_to_num(neginf=0.0)
    mine, other = torch.exp(lse - finite)[..., None], torch.exp(part_lse - finite)[..., None]
    out.copy_((out * mine + part * other).to(out.dtype))
    lse.copy_(total)


def _row_chunks(problem: Problem) -> Iterator[slice]:
    """All queries, some at a time."""
    if not problem.batch * problem.queries:
        return
    step = max(64, CHUNK_BYTES // max(1, problem.batch * problem.heads * problem.head_dim * problem.dtype.itemsize))
    for begin in range(0, problem.queries, step):
        yield slice(begin, begin + step)


def _tile(problem: Problem, cuts: tuple[Edges, ...]) -> tuple[int, ...] | None:
    if isinstance(problem.pattern, BlockPattern):
        return (problem.pattern.size,)
    if is_plain_causal(problem) or not isinstance(problem.pattern, GridPattern):
        return None
    return tuple(size for _, size in cuts) if all(kind == "every" for kind, _ in cuts) else None


@lru_cache(maxsize=1024)
def _choice(problem: Problem, tile: Grid | None) -> tuple[tuple[Edges, ...], int, int, int, int]:
    """The cuts that were asked for or cost least, and pairs, gathered keys, calls and tiles with them."""
    if tile or not isinstance(problem.pattern, GridPattern) or is_plain_causal(problem):
        cuts = tuple(("every", side) for side in tile) if tile else _grid_part_cuts(problem)
        plan = schedule(problem, cuts)
        return cuts, plan.pairs, plan.gathered, len(plan.calls), sum(len(call.query) for call in plan.calls)
    heads = problem.batch * problem.heads
    row = (problem.head_dim + problem.value_dim) * problem.kv_heads * problem.batch * problem.dtype.itemsize

    def seconds(item: tuple[tuple[Edges, ...], Summary]) -> float:
        _, total = item
        flops = 2 * total.pairs * heads * (problem.head_dim + problem.value_dim) * (3.5 if problem.grad else 1)
        calls = max(total.classes, total.gathered * row / CHUNK_BYTES) * _SECONDS_PER_CALL
        runs = total.tiles * _SECONDS_PER_RUN * 2 if problem.grad else 0.0
        return flops * _SECONDS_PER_FLOP + total.gathered * row * _SECONDS_PER_BYTE + calls + runs

    cuts, total = min(candidates(problem), key=seconds)
    return cuts, total.pairs, total.gathered, total.classes, total.tiles


def _grid_part_cuts(problem: Problem) -> tuple[Edges, ...]:
    """A cut for the grid patterns inside a union: tiles of some 64 queries."""
    side = {1: 64, 2: 8, 3: 4}[len(problem.query_grid)]
    return tuple(("every", side) for _ in problem.query_grid)
