"""From a problem and its tensors to the arguments of the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from fovea.kernels.backend import Gradients
from fovea.kernels.problem import Problem
from fovea.kernels.triton import backward as kernels
from fovea.kernels.triton.call import call
from fovea.kernels.triton.forward import attend
from fovea.kernels.triton.interpreter import interpreted, mend
from fovea.kernels.triton.tables import AXES, Walk, walk
from fovea.kernels.triton.tiling import Tile
from fovea.patterns import BlockPattern, Full, GridPattern, Union
from fovea.patterns.pattern import Grid

if interpreted():
    mend()

INT32 = 2**31 - 1
ROWS = 64
"""Rows of a program of the kernels that take rows one by one."""

BIAS_PROGRAMS = 1024
"""Programs for the gradient of the bias beyond which its queries are not shared out further."""


@dataclass(frozen=True, eq=False)
class Walks:
    """Tiles and tables of a call: the walk over queries, and the one over keys where there is a backward pass."""

    tile: Tile
    queries: Walk
    keys: Walk | None = None


def walks(problem: Problem, tile: Tile) -> Walks:
    """Of a grid or a block pattern, or of a union along a sequence."""
    pattern = problem.pattern
    assert isinstance(pattern, GridPattern | BlockPattern | Union)
    grids = pattern, problem.query_grid, problem.key_grid
    device = problem.device
    keys = walk(*grids, tile.grad_query_tile, tile.grad_key_tile, True, device) if problem.grad else None
    return Walks(tile, walk(*grids, tile.query_tile, tile.key_tile, False, device), keys)


def forward(
    problem: Problem,
    found: Walks,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    extra_key: Tensor | None,
    extra_value: Tensor | None,
    list_stride: int = 0,
) -> tuple[Tensor, Tensor]:
    """``out`` and ``lse`` of :class:`fovea.kernels.backend.Backend`."""
    query, key, value = (dense_rows(tensor) for tensor in (query, key, value))
    out = query.new_empty((*query.shape[:-1], value.shape[-1]))
    lse = query.new_empty(query.shape[:-1], dtype=torch.float32)
    tile, queries = found.tile, found.queries
    shared = _shared(problem, queries, (query, key, value, out), bias, list_stride)
    boxes, boxed = _boxes(tile, queries, tile.key_tile, key, value)
    extras, extra_strides = _extras(problem, key, value, extra_key, extra_value)
    call(
        attend, (queries.programs * problem.batch * problem.heads,),
        query, key, value, *boxes, lse if bias is None else bias.contiguous(), *extras, out, lse,
        query_strides=_strides(query), key_strides=_strides(key), value_strides=_strides(value), **extra_strides,
        tiles=queries.tiles, rows=queries.rows, columns=queries.columns, counts=queries.counts, steps=queries.steps,
        extra=problem.extra, **shared, QUERY_TILE=tile.query_tile, KEY_TILE=tile.key_tile,
        PADDED=queries.padded, EXTRA=problem.extra > 0, POSITIVE=problem.scale > 0, BOXED=boxed,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out, lse


def backward(
    problem: Problem,
    found: Walks,
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
    list_stride: tuple[int, int] = (0, 0),
) -> Gradients:
    """The gradients of :class:`fovea.kernels.backend.Backend`."""
    assert found.keys is not None
    query, key, value, grad_out = (dense_rows(tensor) for tensor in (query, key, value, grad_out))
    delta, level = _row_sums(problem, grad_out, grad_lse, out, lse)
    tile, queries = found.tile, found.queries
    table = level if bias is None else bias.contiguous()
    extras, extra_strides = _extras(problem, key, value, extra_key, extra_value)
    boxes, boxed = _boxes(tile, queries, tile.key_tile, key, value)
    dq = torch.empty_like(query, memory_format=torch.contiguous_format)
    call(
        kernels.grad_queries, (queries.programs * problem.batch * problem.heads,),
        query, key, value, *boxes, table, *extras, grad_out, delta, level, dq,
        query_strides=_strides(query), key_strides=_strides(key), value_strides=_strides(value),
        grad_strides=_strides(grad_out), **extra_strides,
        tiles=queries.tiles, rows=queries.rows, columns=queries.columns, counts=queries.counts, steps=queries.steps,
        extra=problem.extra, **_shared(problem, queries, (query, key, value, grad_out), bias, list_stride[0]),
        QUERY_TILE=tile.query_tile, KEY_TILE=tile.key_tile, PADDED=queries.padded,
        EXTRA=problem.extra > 0, BOXED=boxed, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    dk, dv = _keys(problem, found.keys, queries, tile, grad_out, delta, level, query, key, value, bias, list_stride[1])
    dbias = None if bias is None else _bias(problem, queries, grad_out, delta, level, query, key, value, bias)
    dek = dev = None
    if extra_key is not None and extra_value is not None:
        dek, dev = torch.zeros_like(extra_key), torch.zeros_like(extra_value)
        if problem.extra:
            dek, dev = _extra_keys(problem, tile, grad_out, delta, level, query, extra_key, extra_value)
    return dq, dk, dv, dbias, dek, dev


def _row_sums(
    problem: Problem, grad_out: Tensor, grad_lse: Tensor | None, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor]:
    delta, level = torch.empty_like(lse), torch.empty_like(lse)
    tokens = problem.batch * problem.queries
    call(
        kernels.row_sums, (-(-tokens * problem.heads // ROWS),),
        grad_out, lse if grad_lse is None else grad_lse.contiguous(), out.contiguous(), lse.contiguous(), delta, level,
        _strides(grad_out), _grid(problem.query_grid), problem.heads, tokens, VALUE_DIM=problem.value_dim,
        BLOCK_VALUE=block(problem.value_dim), ROWS=ROWS, LSE=grad_lse is not None,
    )  # fmt: skip
    return delta, level


def _keys(
    problem: Problem,
    keys: Walk,
    queries: Walk,
    tile: Tile,
    grad_out: Tensor,
    delta: Tensor,
    level: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    list_stride: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of keys and values, in their dtype."""
    dk, dv = (torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (key, value))
    boxes, boxed = _boxes(tile, keys, tile.grad_query_tile, query, grad_out)
    call(
        kernels.grad_keys, (keys.programs * problem.batch * problem.kv_heads,),
        query, key, value, *boxes, level if bias is None else bias.contiguous(), grad_out, delta, level, dk, dv,
        query_strides=_strides(query), key_strides=_strides(key), value_strides=_strides(value),
        grad_strides=_strides(grad_out), grad_key_strides=_strides(dk), grad_value_strides=_strides(dv),
        tiles=keys.tiles, rows=keys.rows, stands=queries.rows, columns=keys.columns, counts=keys.counts,
        steps=keys.steps, **_shared(problem, keys, (query, key, value, grad_out, dk, dv), bias, list_stride),
        QUERY_TILE=tile.grad_query_tile, KEY_TILE=tile.grad_key_tile, BOXED=boxed,
        num_warps=tile.grad_warps, num_stages=tile.grad_stages,
    )  # fmt: skip
    return dk, dv


def _extra_keys(
    problem: Problem,
    tile: Tile,
    grad_out: Tensor,
    delta: Tensor,
    level: Tensor,
    query: Tensor,
    extra_key: Tensor,
    extra_value: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the keys that every query sees: those of full attention, whose keys are a line beside the grid."""
    line = (1,) * (len(problem.query_grid) - 1)
    smaller = problem.but(pattern=Full(), key_grid=(*line, problem.extra), extra=0, bias=False)
    key, value = (
        dense_rows(tensor).reshape(tensor.shape[0], *line, *tensor.shape[1:]) for tensor in (extra_key, extra_value)
    )
    keys = prod(tile.grad_key_tile)
    tile = tile.but(grad_key_tile=(1, 1, keys))
    found = walks(smaller, tile)
    assert found.keys is not None
    dk, dv = _keys(smaller, found.keys, found.queries, tile, grad_out, delta, level, query, key, value, None, 0)
    return dk.view(extra_key.shape), dv.view(extra_value.shape)


def _bias(
    problem: Problem,
    queries: Walk,
    grad_out: Tensor,
    delta: Tensor,
    level: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
) -> Tensor:
    offsets, tokens = bias[0].numel(), problem.batch * problem.queries
    shares = max(1, min(-(-tokens // ROWS), -(-BIAS_PROGRAMS // (offsets * problem.heads))))
    share = -(-tokens // shares)
    partial = torch.empty((shares, *bias.shape), dtype=torch.float32, device=bias.device)
    call(
        kernels.grad_bias, (offsets, problem.heads, shares),
        query, key, value, bias.contiguous(), grad_out, delta, level, partial,
        _strides(query), _strides(key), _strides(value), _strides(grad_out), _bias_strides(bias),
        queries.rows, _grid(problem.query_grid), _grid(problem.key_grid), queries.steps, _bias_low(problem),
        _grid(tuple(bias.shape[1:])), problem.heads, problem.group, tokens, share, problem.scale,
        HEAD_DIM=problem.head_dim, VALUE_DIM=problem.value_dim, BLOCK_DIM=block(problem.head_dim),
        BLOCK_VALUE=block(problem.value_dim), ROWS=ROWS,
    )  # fmt: skip
    return partial.sum(0).to(bias.dtype)


def _boxes(tile: Tile, found: Walk, box: Grid, *tensors: Tensor) -> tuple[tuple[Any, ...], bool]:
    """Descriptors of the tensors of which a program reads boxes, or the tensors again, and whether they are described:
    where the tile wants it, the columns are neighbours and the memory is as the hardware needs it."""
    if not tile.described or found.steps != (1, 1, 1):
        return tensors, False
    described = tuple(_descriptor(tensor, box) for tensor in tensors)
    return (tensors, False) if None in described else (described, True)


def _descriptor(tensor: Tensor, box: Grid) -> Any:
    """Of a whole tensor as ``[batch, three axes, heads * width]`` with boxes of one head; none where the hardware
    cannot copy such boxes."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    batch, *axes, head, channel = tensor.stride()
    *sizes, heads, width = tensor.shape
    item = tensor.element_size()
    if width != block(width) or channel != 1 or (heads > 1 and head != width):
        return None
    # The hardware wants strides of whole 16 bytes, also where an axis has one place and its stride is never used.
    row = heads * width
    strides = [row if size == 1 else stride for size, stride in zip(sizes, (batch, *axes), strict=True)]
    missing = AXES - len(axes)
    strides = [strides[0], *(row,) * missing, *strides[1:], 1]
    shape = [sizes[0], *(1,) * missing, *sizes[1:], row]
    if tensor.data_ptr() % 16 or any(stride <= 0 or stride * item % 16 for stride in strides[:-1]):
        return None
    return TensorDescriptor(tensor, shape, strides, [1, *box, width])


def block(width: int) -> int:
    """The power of two, at least 16, that holds a width."""
    return max(16, 1 << (width - 1).bit_length())


def precision(dtype: torch.dtype) -> str:
    """How products of float32 are computed: in tf32 only where the user allowed PyTorch to."""
    if dtype != torch.float32:
        return "ieee"
    matmul = torch.backends.cuda.matmul
    chosen = getattr(matmul, "fp32_precision", "none")
    allowed = chosen == "tf32" if chosen != "none" else torch.get_float32_matmul_precision() != "highest"
    return "tf32" if allowed else "ieee"


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor with neighbouring channels side by side in memory."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _grid(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (AXES - len(sizes)) + sizes


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """Of batch, the three axes and the head."""
    batch, *axes, head, _ = tensor.stride()
    return batch, *(0,) * (AXES - len(axes)), *axes, head


def _bias_strides(bias: Tensor) -> tuple[int, ...]:
    head, *axes = bias.contiguous().stride()
    return head, *(0,) * (AXES - len(axes)), *axes


def _bias_low(problem: Problem) -> tuple[int, ...]:
    assert isinstance(problem.pattern, GridPattern)
    sizes = zip(problem.query_grid, problem.key_grid, strict=True)
    lows = tuple(problem.pattern.offsets(axis, *size)[0] for axis, size in enumerate(sizes))
    return (0,) * (AXES - len(lows)) + lows


def _extras(
    problem: Problem, key: Tensor, value: Tensor, extra_key: Tensor | None, extra_value: Tensor | None
) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
    if extra_key is None or extra_value is None or not problem.extra:
        return (key, value), {"extra_key_strides": (0, 0, 0), "extra_value_strides": (0, 0, 0)}
    extra_key, extra_value = dense_rows(extra_key), dense_rows(extra_value)
    strides = {"extra_key_strides": extra_key.stride()[:3], "extra_value_strides": extra_value.stride()[:3]}
    return (extra_key, extra_value), strides


def reach_far(tensors: tuple[Tensor, ...]) -> bool:
    """Whether places inside of a batch entry of any of them need numbers of 64 bits."""
    furthest = max(
        sum((size - 1) * abs(stride) for size, stride in zip(tensor.shape[1:], tensor.stride()[1:], strict=True))
        for tensor in tensors
    )
    return furthest > INT32 // 2


def _shared(
    problem: Problem, found: Walk, tensors: tuple[Tensor, ...], bias: Tensor | None, list_stride: int
) -> dict[str, Any]:
    """What the kernels that walk have in common; ``tensors`` are those that they address by tokens."""
    return {
        "query_grid": _grid(problem.query_grid),
        "key_grid": _grid(problem.key_grid),
        "bias_strides": (0, 0, 0, 0) if bias is None else _bias_strides(bias),
        "bias_low": (0, 0, 0) if bias is None else _bias_low(problem),
        "list_stride": list_stride,
        "heads": problem.heads,
        "group": problem.group,
        "scale": problem.scale,
        "AXES": found.axes,
        "LISTS": found.lists,
        "LAYERED": found.layered,
        "HEAD_DIM": problem.head_dim,
        "VALUE_DIM": problem.value_dim,
        "BLOCK_DIM": block(problem.head_dim),
        "BLOCK_VALUE": block(problem.value_dim),
        "BIAS": bias is not None,
        "PRECISION": precision(problem.dtype),
        "WIDEN": interpreted() and problem.dtype == torch.bfloat16,
        "WIDE": reach_far(tensors),
    }
