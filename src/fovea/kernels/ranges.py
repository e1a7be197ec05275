"""Attention of each query to runs of keys of its own: no mask, no matrix of all pairs.

Pairs of a query and a run are sorted by where the run ends and cut into tiles that end in the same block of keys, so
that a tile is a dense product of its queries with the few keys that any of them sees (the bucketed kernel of
Superlinear attention, arXiv 2601.18401, section 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

_ROWS = 1024
"""Most pairs of a tile."""
_ALONE = 1024
"""So few pairs are computed one by one, where their keys lie."""
_SPARSE = 16
"""Where a line of keys has so few pairs, tiles would be empty: the keys of each pair are gathered."""


def range_attention(
    query: Float[Tensor, "batch queries heads head_dim"],
    key: Float[Tensor, "batch keys kv_heads head_dim"],
    value: Float[Tensor, "batch keys kv_heads value_dim"],
    start: Int64[Tensor, "batch queries heads ranges"],
    stop: Int64[Tensor, "batch queries heads ranges"],
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``softmax(scale q . k) v`` over the keys ``start .. stop - 1`` of each range apart, and its log-sum-exp.

    Differentiable in query, key and value, through both results. Computed in float32 (float64 for float64).

    Args:
        query, key, value: ``kv_heads`` divides ``heads``.
        start, stop: ranges of each query and head; ``stop <= start`` sees nothing.
        scale: factor of the logits; by default ``head_dim ** -0.5``.

    Returns:
        ``out [batch, queries, heads, ranges, value_dim]`` in query's dtype and ``lse [batch, queries, heads, ranges]``;
        0 and -inf where nothing is seen.
    """
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    wide = torch.promote_types(query.dtype, torch.float32)
    if start.numel() <= _ALONE and not torch.is_grad_enabled():
        out, lse = _alone(query.to(wide), key, value, start, stop, factor)
    elif start.numel() <= _SPARSE * key.shape[0] * key.shape[2]:
        out, lse = _gathered(query.to(wide), key.to(wide), value.to(wide), start, stop, factor)
    else:
        out, lse = _Ranges.apply(query.to(wide), key.to(wide), value.to(wide), start, stop, factor)  # type: ignore[misc]
    return out.to(query.dtype), lse


def range_attention_naive(
    query: Tensor, key: Tensor, value: Tensor, start: Tensor, stop: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """What :func:`range_attention` computes, from masked scores of all pairs."""
    group = query.shape[2] // key.shape[2]
    key, value = (tensor.repeat_interleave(group, 2) for tensor in (key, value))
    scores = torch.einsum("bthd,bshd->bths", query, key) * (query.shape[-1] ** -0.5 if scale is None else scale)
    at = torch.arange(key.shape[1], device=key.device)
    seen = (at >= start[..., None]) & (at < stop[..., None])  # [batch, queries, heads, ranges, keys]
    logits = scores[:, :, :, None].masked_fill(~seen, -torch.inf)
    lse = logits.logsumexp(-1)
    weights = (logits - torch.where(lse == -torch.inf, 0, lse)[..., None]).exp()
    return torch.einsum("bthrs,bshd->bthrd", weights, value), lse


def _alone(
    query: Tensor, key: Tensor, value: Tensor, start: Tensor, stop: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """A handful of pairs, such as those of a token that is read alone."""
    group, ranges = query.shape[2] // key.shape[2], start.shape[-1]
    scaled = (query * scale).flatten(0, 2)
    runs = []
    queries, heads = query.shape[1:3]
    for pair, (low, high) in enumerate(zip(start.flatten().tolist(), stop.flatten().tolist(), strict=True)):
        row = pair // ranges
        seen = slice(max(low, 0), max(high, low, 0))
        runs.append((row, (row // (queries * heads), seen, row % heads // group)))
    logits = query.new_full((start.numel(), max((at[1].stop - at[1].start for _, at in runs), default=0)), -torch.inf)
    for pair, (row, at) in enumerate(runs):
        keys = key[at].to(query.dtype)
        if len(keys):
            torch.mv(keys, scaled[row], out=logits[pair, : len(keys)])
    lse = logits.logsumexp(1)
    weights = (logits - torch.where(lse == -torch.inf, 0, lse)[:, None]).exp_()
    out = query.new_zeros(start.numel(), value.shape[-1])
    for pair, (_, at) in enumerate(runs):
        values = value[at].to(query.dtype)
        if len(values):
            torch.mv(values.t(), weights[pair, : len(values)], out=out[pair])
    return out.unflatten(0, start.shape), lse.unflatten(0, start.shape)


def _gathered(
    query: Tensor, key: Tensor, value: Tensor, start: Tensor, stop: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Few pairs of many sequences, such as those of their last tokens."""
    keys, shape = key.shape[1], start.shape
    offset = _offset(start, query.shape[2] // key.shape[2], keys)
    low, high = ((each.clamp(0, keys) + offset).flatten() for each in (start, stop))
    width = max(int((high - low).max()), 1)
    index = low[:, None] + torch.arange(width, device=low.device)
    seen = index < high[:, None]
    index = index.clamp(max=offset.max() + keys - 1).flatten()
    taken, said = (_lines(tensor).index_select(0, index).unflatten(0, seen.shape) for tensor in (key, value))
    pairs = (query * scale).flatten(0, 2).repeat_interleave(shape[-1], 0)
    logits = torch.bmm(taken, pairs[:, :, None])[..., 0].masked_fill(~seen, -torch.inf)
    empty = ~seen.any(1)
    lse = logits.masked_fill(empty[:, None], 0).logsumexp(1)
    weights = (logits - lse[:, None]).exp()
    out = torch.bmm(weights[:, None], said)[:, 0]
    return out.unflatten(0, shape), lse.masked_fill(empty, -torch.inf).unflatten(0, shape)


def _offset(start: Tensor, heads_per_key: int, keys: int) -> Tensor:
    """``[batch, 1, heads, 1]``: where the keys of each query begin among those of all batch entries and kv heads."""
    line = torch.arange(start.shape[0] * (start.shape[2] // heads_per_key), device=start.device)
    return (line.view(start.shape[0], 1, -1, 1) * keys).repeat_interleave(heads_per_key, 2)


@dataclass
class _Tiles:
    """Pairs in the order of their tiles.

    Attributes:
        pair: number of each pair among all, sorted.
        row: of the query that each pair belongs to.
        start, stop: among the keys of all batch entries and kv heads, one after the other.
        tiles: of each tile, the pairs ``first .. last - 1``, the keys ``low .. high - 1`` that some of them see, and
            ``full .. end - 1`` among these that all see (where ``end < full``, there are none).
    """

    pair: Tensor
    row: Tensor
    start: Tensor
    stop: Tensor
    tiles: list[tuple[int, int, int, int, int, int]]

    def __iter__(self) -> Iterator[tuple[slice, slice, list[tuple[slice, slice]]]]:
        """Pairs and keys of each tile, and the parts of the keys, as they are and in the tile, that some pair does not
        see."""
        for first, last, low, high, full, end in self.tiles:
            parts = [(low, full), (end, high)] if full < end else [(low, high)]
            edges = [(slice(a, b), slice(a - low, b - low)) for a, b in parts if a < b]
            yield slice(first, last), slice(low, high), edges


def _tile(start: Tensor, stop: Tensor, heads_per_key: int, keys: int) -> _Tiles:
    offset = _offset(start, heads_per_key, keys)
    low = (start.clamp(min=0) + offset).flatten()
    high = (stop.clamp(max=keys) + offset).flatten()
    pair = (stop.clamp(max=keys) > start.clamp(min=0)).flatten().nonzero()[:, 0]
    low, high = low[pair], high[pair]
    order = high.argsort(stable=True)
    pair, low, high = pair[order], low[order], high[order]
    tiles = []
    if len(pair):
        starts, stops = low.cpu().numpy(), high.cpu().numpy()
        widest = int((stops - starts).max())
        block = 1 << min(9, max(5, (widest // 4).bit_length()))
        edges = np.flatnonzero(np.diff((stops - 1) // block)) + 1
        edges = np.concatenate([[0], edges, [len(stops)]])
        edges = np.concatenate([np.arange(a, b, _ROWS) for a, b in pairwise(edges)])
        ends = np.append(edges[1:], len(stops))
        lowest, highest = np.minimum.reduceat(starts, edges), np.maximum.reduceat(starts, edges)
        columns = (edges, ends, lowest, stops[ends - 1], highest, stops[edges])
        tiles = list(zip(*(column.tolist() for column in columns), strict=True))
    return _Tiles(pair, pair // start.shape[-1], low, high, tiles)


class _Scratch:
    """Memory for the products of one tile after the other."""

    def __init__(self, like: Tensor, number: int) -> None:
        self.held = [like.new_empty(0) for _ in range(number)]

    def __call__(self, place: int, rows: int, columns: int) -> Tensor:
        if self.held[place].numel() < rows * columns:
            self.held[place] = self.held[place].new_empty(rows * columns)
        return self.held[place][: rows * columns].view(rows, columns)


def _hide(logits: Tensor, tiles: _Tiles, pairs: slice, edges: list[tuple[slice, slice]], at: Tensor) -> None:
    """-inf where a pair does not see a key."""
    for keys, columns in edges:
        here = at[keys]
        hidden = (here < tiles.start[pairs, None]).logical_or_(here >= tiles.stop[pairs, None])
        logits[:, columns].masked_fill_(hidden, -torch.inf)


def _lines(tensor: Tensor) -> Tensor:
    """``[batch, keys, kv_heads, C] -> [batch * kv_heads * keys, C]``."""
    return tensor.transpose(1, 2).reshape(-1, tensor.shape[-1])


class _Ranges(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, start: Tensor, stop: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        tiles = _tile(start, stop, query.shape[2] // key.shape[2], key.shape[1])
        queries = query.reshape(-1, query.shape[-1])[tiles.row] * scale
        keys, values = _lines(key), _lines(value)
        at = torch.arange(len(keys), device=key.device)
        found = queries.new_empty(len(queries), value.shape[-1])
        total = queries.new_empty(len(queries))
        scratch = _Scratch(queries, 1)
        for pairs, seen, edges in tiles:
            weights = scratch(0, pairs.stop - pairs.start, seen.stop - seen.start)
            torch.mm(queries[pairs], keys[seen].t(), out=weights)
            _hide(weights, tiles, pairs, edges, at)
            top = weights.amax(1, keepdim=True)
            weights.sub_(top).exp_()
            share = weights.sum(1, keepdim=True)
            torch.mm(weights, values[seen], out=found[pairs]).div_(share)
            total[pairs] = (top + share.log())[:, 0]
        out = found.new_zeros(start.numel(), value.shape[-1]).index_copy_(0, tiles.pair, found)
        lse = total.new_full((start.numel(),), -torch.inf).index_copy_(0, tiles.pair, total)
        ctx.save_for_backward(query, key, value, found, total)
        ctx.tiles, ctx.scale = tiles, scale
        ctx.set_materialize_grads(False)
        return out.unflatten(0, start.shape), lse.unflatten(0, start.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, found, total = ctx.saved_tensors
        tiles: _Tiles = ctx.tiles
        grad_out, grad_lse = grads
        if grad_out is None and grad_lse is None:
            return (None,) * 6
        width = value.shape[-1]
        grad_found = torch.zeros_like(found) if grad_out is None else grad_out.reshape(-1, width)[tiles.pair]
        slope = -(grad_found * found).sum(1, keepdim=True)
        if grad_lse is not None:
            slope += grad_lse.reshape(-1, 1)[tiles.pair]
        queries = query.reshape(-1, query.shape[-1])[tiles.row] * ctx.scale
        keys, values = _lines(key), _lines(value)
        at = torch.arange(len(keys), device=key.device)
        grad_queries = torch.empty_like(queries)
        grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
        scratch = _Scratch(queries, 2)
        for pairs, seen, edges in tiles:
            shape = pairs.stop - pairs.start, seen.stop - seen.start
            weights = torch.mm(queries[pairs], keys[seen].t(), out=scratch(0, *shape))
            _hide(weights, tiles, pairs, edges, at)
            weights.sub_(total[pairs, None]).exp_()
            grad_values[seen].addmm_(weights.t(), grad_found[pairs])
            products = torch.mm(grad_found[pairs], values[seen].t(), out=scratch(1, *shape))
            weights.mul_(products.add_(slope[pairs]))
            torch.mm(weights, keys[seen], out=grad_queries[pairs])
            grad_keys[seen].addmm_(weights.t(), queries[pairs])
        grad_query = torch.zeros_like(query).reshape(-1, query.shape[-1])
        grad_query.index_add_(0, tiles.row, grad_queries.mul_(ctx.scale))
        back = [
            grad.unflatten(0, (key.shape[0], key.shape[2], key.shape[1])).transpose(1, 2)
            for grad in (grad_keys, grad_values)
        ]
        return grad_query.view_as(query), *back, None, None, None
