"""The native backend: what it takes, what it would cost, and tensors handed to the library."""

from __future__ import annotations

from ctypes import c_int64, pointer
from functools import lru_cache

import torch
from torch import Tensor

from fovea.kernels.backend import Backend, Gradients, Work, matmul_flops, tensor_bytes
from fovea.kernels.native.library import (
    Array,
    Axis,
    BlockLists,
    GradientArrays,
    Operands,
    Question,
    call,
    library,
    variant,
)
from fovea.kernels.problem import Problem
from fovea.patterns import BlockPattern, BlockTable, GridPattern

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_THREAD_SCRATCH = 1 << 20
_FEW = 16
"""Queries of a kv head that read keys where they lie (``MOST_QUERIES`` of the library)."""


class Native(Backend):
    """Blocks of queries against packed panels of keys, all variants of the CPU from one C++ source."""

    name = "native"

    def missing(self) -> str | None:
        found = library()
        return found if isinstance(found, str) else None

    def refuses(self, problem: Problem) -> str | None:
        if problem.device.type != "cpu":
            return f"it computes on the CPU, not on {problem.device}"
        if problem.dtype not in DTYPES:
            return f"it computes in float32; {problem.dtype} is left to others"
        if not isinstance(problem.pattern, GridPattern | BlockPattern):
            return f"a {problem.pattern.name} is neither a grid pattern nor a block pattern"
        if max(problem.head_dim, problem.value_dim) > 4096:
            return "heads may be at most 4096 wide"
        return None

    def work(self, problem: Problem) -> Work:
        pairs, tile = _tiles(problem.but(dtype=torch.float32, device=torch.device("cpu"), grad=False))
        computed = problem.batch * problem.heads * (pairs + problem.queries * problem.extra)
        keys = problem.keys if problem.grad else problem.seen_keys
        repacked = 2.0 * problem.batch * problem.kv_heads * keys * (problem.head_dim + problem.value_dim) * 4
        if not problem.grad and problem.queries * problem.group <= _FEW:
            repacked = 0.0
        return Work(
            pairs=computed,
            flops=matmul_flops(problem, computed),
            bytes=tensor_bytes(problem) + repacked,
            launches=1,
            tile=tile,
            scratch=float(_THREAD_SCRATCH * torch.get_num_threads() + (repacked if problem.grad else 0)),
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
        out = query.new_empty(*query.shape[:-1], problem.value_dim)
        lse = query.new_empty(query.shape[:-1], dtype=torch.float32)
        held = _Held(query, key, value, extra_key, extra_value, out, bias, lse)  # alive until the library is done
        call("fovea_forward", _question(problem), held.operands)
        return out, lse

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
        held = _Held(query, key, value, extra_key, extra_value, out, bias, lse)
        fresh = torch.empty if problem.queries and problem.batch else torch.zeros
        made = [fresh(t.shape, dtype=t.dtype) for t in (query, key, value)]
        extras = [None if t is None else fresh(t.shape, dtype=t.dtype) for t in (extra_key, extra_value)]
        grad_bias = None if held.bias is None else torch.zeros_like(held.bias)
        grad_out = _dense(grad_out)
        dlse = None if grad_lse is None else grad_lse.to(torch.float32).contiguous()
        arrays = GradientArrays(
            *(_array(t) for t in (grad_out, *made, *extras)),
            None if dlse is None else dlse.data_ptr(),
            None if grad_bias is None else grad_bias.data_ptr(),
        )
        call("fovea_backward", _question(problem), held.operands, arrays)
        dbias = None if bias is None or grad_bias is None else grad_bias.to(bias.dtype)
        return made[0], made[1], made[2], dbias, extras[0], extras[1]


class _Held:
    """Tensors in a form the library reads; it keeps the copies alive."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        extra_key: Tensor | None,
        extra_value: Tensor | None,
        out: Tensor,
        bias: Tensor | None,
        lse: Tensor,
    ) -> None:
        self.arrays = [None if t is None else _dense(t) for t in (query, key, value, extra_key, extra_value, out)]
        self.bias = None if bias is None else bias.to(torch.float32).contiguous()
        self.lse = lse.contiguous()
        self.operands = Operands(
            *(_array(t) for t in self.arrays),
            None if self.bias is None else self.bias.data_ptr(),
            self.lse.data_ptr(),
        )


def _dense(tensor: Tensor) -> Tensor:
    """The tensor itself where its last axis is dense, else a copy."""
    return tensor if tensor.shape[-1] <= 1 or tensor.stride(-1) == 1 else tensor.contiguous()


_STRIDES = c_int64 * 5
_NO_ARRAY = Array(None, 0, _STRIDES())


def _array(tensor: Tensor | None) -> Array:
    if tensor is None:
        return _NO_ARRAY
    batch, *axes, head, _ = tensor.stride()
    size = tensor.untyped_storage().nbytes() // tensor.itemsize - tensor.storage_offset()
    return Array(tensor.data_ptr(), size, _STRIDES(batch, *axes, *(0,) * (3 - len(axes)), head))


def _question(problem: Problem) -> Question:
    question, _ = _geometry(problem)
    made = Question.from_buffer_copy(question)
    made.threads = torch.get_num_threads()
    made.isa = variant()
    return made


@lru_cache(maxsize=512)
def _geometry(problem: Problem) -> tuple[Question, object]:
    """The problem but for threads and variant, and the tables that it points to."""
    p = problem
    tables: object = None
    sizes = (p.batch, p.heads, p.kv_heads, p.head_dim, p.value_dim, p.extra)
    question = Question(DTYPES[p.dtype], len(p.query_grid), 1, -1, *sizes, p.scale)
    if isinstance(p.pattern, GridPattern):
        spans = p.spans
        for axis, table in enumerate(spans):
            low, high = p.pattern.offsets(axis, p.query_grid[axis], p.key_grid[axis])
            question.axis[axis] = Axis(
                table.queries,
                table.keys,
                table.step,
                *table.padding,
                low,
                max(high - low + 1, 0),
                *(array.ctypes.data for array in (table.start, table.stop, table.position)),
            )
        tables = spans
    elif isinstance(p.pattern, BlockPattern):
        lists = p.pattern.table(p.query_grid[0], p.key_grid[0])
        blocks = block_lists(lists)
        question.blocks = pointer(blocks)
        tables = (lists, blocks)
    return question, tables


def block_lists(table: BlockTable) -> BlockLists:
    """The library's form of a table; it points into the table's arrays."""
    return BlockLists(
        table.size,
        table.queries,
        table.keys,
        table.position,
        table.rows,
        1,
        len(table.index),
        int(table.causal),
        table.indptr.ctypes.data,
        table.index.ctypes.data,
        None,
    )


@lru_cache(maxsize=512)
def _tiles(problem: Problem) -> tuple[int, tuple[int, ...] | None]:
    """Pairs that the tiles compute for one head of one batch entry, and the tile."""
    if isinstance(problem.pattern, BlockPattern):
        table = problem.pattern.table(problem.query_grid[0], problem.key_grid[0])
        tiles = len(table.index) * table.size * min(table.size, table.queries)
        return max(problem.pairs - problem.queries * problem.extra, tiles), None
    found = (c_int64 * 2)()
    call("fovea_work", _geometry(problem)[0], found)
    rows, columns = int(found[1]) >> 32, int(found[1]) & 0xFFFFFFFF
    return int(found[0]), (1, rows, columns)[-len(problem.query_grid) :]
