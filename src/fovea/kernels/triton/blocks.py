"""Attention over block tables that are chosen at run time: clusters, chosen spans, the best blocks of a query.

The table is a tensor on the device; the lists that the kernels walk over are made from it there, without waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fovea.kernels.problem import Problem
from fovea.kernels.triton import launch
from fovea.kernels.triton.tables import ONE, RECORD, Walk, on_device
from fovea.kernels.triton.tiling import Tile, copies_boxes, sizes
from fovea.patterns import Full


@dataclass(frozen=True)
class Sizes:
    """How queries and keys are cut in blocks, and where the first query stands among the keys.

    Attributes:
        queries, keys: tokens.
        query_block, key_block: tokens of a block; the last of each may be shorter.
        causal: whether a query sees no key behind its own position, ``keys - queries`` and on.
    """

    queries: int
    keys: int
    query_block: int
    key_block: int
    causal: bool

    @property
    def position(self) -> int:
        """Where the first query stands under causality."""
        return self.keys - self.queries

    @property
    def rows(self) -> int:
        return -(-self.queries // self.query_block)

    @property
    def key_blocks(self) -> int:
        return -(-self.keys // self.key_block)


def block_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    index: Tensor,
    *,
    query_block: int,
    key_block: int,
    causal: bool = False,
    scale: float | None = None,
    return_lse: bool = False,
) -> Any:
    """Attention in which each block of queries sees the key blocks that ``index`` lists for it.

    Differentiable in query, key and value, and through lse, once; deterministic; one node for torch.compile.

    Args:
        query: ``[batch, queries, heads, head_dim]``; float32, bfloat16 or float16.
        key, value: ``[batch, keys, kv_heads, head_dim or value_dim]``.
        index: ``[batch, kv_heads, query blocks, most]``, integers: key blocks in any order, none twice, -1 where fewer
            are seen.
        query_block, key_block: tokens of a block; the last of each may be shorter.
        causal: a query sees no key behind its own position; with fewer queries than keys the queries are the last.
        scale: factor of the logits, by default ``head_dim ** -0.5``.

    Returns:
        ``out [batch, queries, heads, value_dim]``, with ``return_lse`` also ``lse [batch, queries, heads]``.

    Raises:
        ValueError: naming the argument, what it was and what it may be.
    """
    shape = Sizes(query.shape[1], key.shape[1], query_block, key_block, causal)
    if min(query_block, key_block) < 1:
        raise ValueError(f"query_block={query_block}, key_block={key_block}; both must be at least 1 token")
    wanted = (query.shape[0], key.shape[2], shape.rows)
    if index.ndim != 4 or tuple(index.shape[:3]) != wanted:
        raise ValueError(f"index has shape {tuple(index.shape)}; it must be {wanted} and the most blocks of a row")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    out, lse = torch.ops.fovea.block_attention(query, key, value, index, query_block, key_block, causal, scale)
    return (out, lse) if return_lse else out


def mask(index: Tensor, shape: Sizes) -> Tensor:
    """``[batch, kv_heads, queries, keys]``: what ``index`` lets be seen. The definition, for small cases."""
    seen = index.new_zeros((*index.shape[:3], shape.key_blocks + 1), dtype=torch.bool)
    seen.scatter_(3, torch.where(index < 0, shape.key_blocks, index).long(), True)
    query, key = (torch.arange(n, device=index.device) for n in (shape.queries, shape.keys))
    tokens = seen[:, :, query // shape.query_block][..., key // shape.key_block]
    return tokens & (key <= query[:, None] + shape.position) if shape.causal else tokens


@torch.library.custom_op("fovea::block_attention", mutates_args=())
def _forward(
    query: Tensor, key: Tensor, value: Tensor, index: Tensor, query_block: int, key_block: int, causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    shape = Sizes(query.shape[1], key.shape[1], query_block, key_block, causal)
    problem = _problem(query, key, value, scale, grad=False)
    tile = tile_of(problem, shape)
    walks = launch.Walks(tile, query_walk(index, shape, tile.query_tile[2], tile.key_tile[2]))
    return launch.forward(problem, walks, query, key, value, None, None, None, walks.queries.counts[2])


@torch.library.custom_op("fovea::block_attention_backward", mutates_args=())
def _backward(
    grad_out: Tensor, grad_lse: Tensor | None, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor,
    index: Tensor, query_block: int, key_block: int, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    shape = Sizes(query.shape[1], key.shape[1], query_block, key_block, causal)
    problem = _problem(query, key, value, scale, grad=True)
    tile = tile_of(problem, shape)
    queries = query_walk(index, shape, tile.query_tile[2], tile.key_tile[2])
    keys = key_walk(index, shape, tile.grad_query_tile[2], tile.grad_key_tile[2])
    dq, dk, dv, *_ = launch.backward(
        problem, launch.Walks(tile, queries, keys), grad_out, grad_lse, query, key, value, out, lse, None, None, None,
        (queries.counts[2], keys.counts[2]),
    )  # fmt: skip
    return dq, dk, dv


def _problem(query: Tensor, key: Tensor, value: Tensor, scale: float, *, grad: bool) -> Problem:
    batch, queries, heads, dim = query.shape
    return Problem(
        Full(), (queries,), (key.shape[1],), batch, heads, key.shape[2], dim, value.shape[-1], 0, False, scale,
        query.dtype, query.device, grad,
    )  # fmt: skip


@_forward.register_fake
def _(query, key, value, index, query_block, key_block, causal, scale):
    out = query.new_empty((*query.shape[:-1], value.shape[-1]))
    return out, query.new_empty(query.shape[:-1], dtype=torch.float32)


@_backward.register_fake
def _(grad_out, grad_lse, query, key, value, out, lse, index, query_block, key_block, causal, scale):
    return tuple(tensor.new_empty(tensor.shape) for tensor in (query, key, value))


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    query, key, value, index, *ctx.given = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, *output, index)


def _differentiate(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> Any:
    if grad_out is None and grad_lse is None:
        return (None,) * 8
    query, key, value, out, lse, index = ctx.saved_tensors
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    grads = torch.ops.fovea.block_attention_backward(grad_out, grad_lse, query, key, value, out, lse, index, *ctx.given)
    return (*grads, None, None, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)


def tile_of(problem: Problem, shape: Sizes) -> Tile:
    """Boxes not longer than the blocks, where these are long enough."""
    own = sizes(problem)[0][0]
    grad = sizes(problem.but(grad=True))[1][0]

    def inside(places: int, block: int) -> tuple[int, int, int]:
        return 1, 1, max(16, min(places, 1 << (block.bit_length() - 1)))

    return Tile(
        inside(own.rows, shape.query_block), inside(own.columns, shape.key_block),
        inside(grad.columns, shape.query_block), inside(grad.rows, shape.key_block),
        own.warps, own.stages, grad.warps, grad.stages, copies_boxes(problem.device),
    )  # fmt: skip


def query_walk(index: Tensor, shape: Sizes, row_tile: int, column_tile: int) -> Walk:
    """From tiles of queries to the listed key blocks, for each batch entry and kv head."""
    lists = index.flatten(0, 1).to(torch.int64)
    groups, rows, most = lists.shape
    missing = shape.key_blocks
    blocks = torch.where(lists < 0, missing, lists).sort(-1).values
    real = blocks < missing
    start, stop = blocks * shape.key_block, torch.clamp((blocks + 1) * shape.key_block, max=shape.keys)
    columns, pieces = _entries(torch.where(real, start, 0), torch.where(real, stop, 0), shape.key_block, column_tile)
    parts = -(-shape.query_block // row_tile)
    first, count = _pieces(shape.queries, shape.query_block, row_tile, rows, index.device)
    whole = real & (stop - start == shape.key_block)
    if shape.key_block % column_tile:
        whole = torch.zeros_like(whole)
    full = whole[:, :, None, :].expand(-1, -1, parts, -1)
    if shape.causal:
        full = full & (stop[:, :, None, :] - 1 <= first.view(1, rows, parts, 1) + shape.position)
    # Blocks ascend, so that those which need no mask come first.
    fulls = full.long().cumprod(-1).sum(-1)
    begin = (torch.arange(groups * rows, device=index.device) * most).view(groups, rows, 1)
    ends = begin + real.sum(-1, keepdim=True)
    tiles = _records(first, count, begin * pieces, (begin + fulls) * pieces, (begin + fulls) * pieces, ends * pieces)
    query = torch.arange(shape.queries, device=index.device)
    last = query + shape.position + 1 if shape.causal else torch.full_like(query, shape.keys)
    return _walk(tiles, torch.zeros_like(query), last, columns, groups, index.device)


def key_walk(index: Tensor, shape: Sizes, column_tile: int, row_tile: int) -> Walk:
    """The inverse: from tiles of keys to the query blocks that list their block."""
    lists = index.flatten(0, 1).to(torch.int64)
    groups, rows, most = lists.shape
    missing = shape.key_blocks
    flat = torch.where(lists < 0, missing, lists).flatten(1)
    blocks, order = flat.sort(dim=-1, stable=True)
    row = order // most  # ascends among the entries of a key block
    start, stop = row * shape.query_block, torch.clamp((row + 1) * shape.query_block, max=shape.queries)
    columns, pieces = _entries(start, stop, shape.query_block, column_tile)
    edges = torch.arange(missing + 1, device=index.device).expand(groups, -1).contiguous()
    at = torch.searchsorted(blocks.contiguous(), edges)
    first, count = _pieces(shape.keys, shape.key_block, row_tile, missing, index.device)
    parts = -(-shape.key_block // row_tile)
    base = (torch.arange(groups, device=index.device) * rows * most).view(groups, 1, 1)
    low, high = at[:, :-1, None], at[:, 1:, None]
    if shape.causal:
        last = (first + count - 1).view(1, missing, parts)
        # Queries ascend: blocks with a query before the last key of the tile need the mask.
        sees_all = torch.clamp(-(-(last - shape.position) // shape.query_block), min=0)
        key = blocks * (rows + 1) + row
        wanted = torch.arange(missing, device=index.device).view(1, missing, 1) * (rows + 1) + sees_all
        begin_full = torch.searchsorted(key.contiguous(), wanted.expand(groups, -1, -1).flatten(1).contiguous())
        begin_full = begin_full.view(groups, missing, parts).clamp(min=low, max=high)
    else:
        begin_full = low.expand(groups, missing, parts)
    if shape.queries % shape.query_block or shape.query_block % column_tile:
        begin_full = high.expand(groups, missing, parts)
    tiles = _records(
        first, count, (base + begin_full) * pieces, (base + high) * pieces, (base + low) * pieces,
        (base + begin_full) * pieces,
    )  # fmt: skip
    keys = torch.arange(shape.keys, device=index.device)
    since = torch.clamp(keys - shape.position, min=0) if shape.causal else torch.zeros_like(keys)
    return _walk(tiles, since, torch.full_like(keys, shape.queries), columns, groups, index.device)


def _pieces(tokens: int, block: int, tile: int, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First token and tokens of the tiles of each block, ``[rows * tiles of a block]``."""
    row, part = torch.arange(rows, device=device)[:, None], torch.arange(-(-block // tile), device=device)[None, :]
    first = row * block + part * tile
    end = torch.clamp((row + 1) * block, max=tokens)
    return first.flatten(), torch.clamp(torch.minimum(first + tile, end) - first, min=0).flatten()


def _entries(start: Tensor, stop: Tensor, block: int, tile: int) -> tuple[Tensor, int]:
    """Blocks cut in tiles: ``[blocks * pieces, 2]``, and how many pieces a block has."""
    pieces = -(-block // tile)
    begin = start[..., None] + torch.arange(pieces, device=start.device) * tile
    end = torch.minimum(begin + tile, stop[..., None])
    return torch.stack([begin, end], -1).view(-1, 2).to(torch.int32), pieces


def _records(first: Tensor, count: Tensor, *ranges: Tensor) -> Tensor:
    """``[lists, tiles, 8]``; the ranges are ``[lists, rows, tiles of a row or 1]``."""
    full, full_end, partial, partial_end = torch.broadcast_tensors(*ranges)
    lists = len(full)
    zeros = torch.zeros((lists, len(first)), dtype=torch.int64, device=first.device)
    head = [first.expand(lists, -1), count.expand(lists, -1), zeros, zeros]
    parts = len(first) // full.shape[1]
    spread = [
        place.expand(-1, -1, parts).flatten(1) if place.shape[2] == 1 else place.flatten(1)
        for place in (full, full_end, partial, partial_end)
    ]
    return torch.stack([*head, *spread], -1).to(torch.int32)


@lru_cache(maxsize=16)
def _one(device: torch.device) -> tuple[Tensor, Tensor]:
    """The tables of an axis of one place."""
    return on_device(ONE.tiles, device), on_device(ONE.rows, device)


def _walk(tiles: Tensor, start: Tensor, stop: Tensor, columns: Tensor, groups: int, device: torch.device) -> Walk:
    zeros = torch.zeros_like(start)
    rows = torch.stack([start, stop, zeros, zeros], -1).to(torch.int32)
    one, row = _one(device)
    assert tiles.shape[-1] == RECORD
    return Walk(
        (one, one, tiles.contiguous()), (row, row, rows), columns, (1, 1, tiles.shape[1]), (1, 1, 1), 1, True, False,
        len(columns), 0,
    )  # fmt: skip
