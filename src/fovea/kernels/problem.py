"""What is asked of the operator: everything that a backend or the planner may depend on, as one hashable value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from fovea.patterns import BlockPattern, GridPattern, Pattern, PerHead, Spans, Union
from fovea.patterns.cost import count_pairs
from fovea.patterns.pattern import Grid

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Problem:
    """One call of :func:`fovea.attention`, without its numbers.

    Attributes:
        pattern: which keys a query sees.
        query_grid, key_grid: shapes of the tokens.
        batch, heads, kv_heads: ``kv_heads`` divides ``heads``; query head ``h`` reads kv head
            ``h // (heads // kv_heads)``.
        head_dim, value_dim: widths of keys and of values.
        extra: number of keys seen by every query.
        bias: whether a relative bias table is added to the logits.
        scale: factor of the logits.
        dtype, device: of query, key and value.
        grad: whether the backward pass is meant rather than the forward pass.
    """

    pattern: Pattern
    query_grid: Grid
    key_grid: Grid
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    extra: int
    bias: bool
    scale: float
    dtype: torch.dtype
    device: torch.device
    grad: bool = False

    @property
    def queries(self) -> int:
        """Number of query tokens."""
        return prod(self.query_grid)

    @property
    def keys(self) -> int:
        """Number of key tokens, without padding and extra keys."""
        return prod(self.key_grid)

    @cached_property
    def seen_keys(self) -> int:
        """Number of key tokens that some query sees, rounded up to what is read at once: on a grid the smallest box
        that holds them, in a block pattern whole blocks."""
        if isinstance(self.pattern, GridPattern):
            return prod(_extent(spans) for spans in self.spans)
        if isinstance(self.pattern, BlockPattern):
            table = self.pattern.table(self.query_grid[0], self.key_grid[0])
            return min(self.keys, len(np.unique(table.index)) * table.size)
        return self.keys

    @property
    def group(self) -> int:
        """Query heads a kv head."""
        return self.heads // self.kv_heads

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of logits, softmax and lse."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def spans(self) -> tuple[Spans, ...]:
        """The spans of a grid pattern."""
        if not isinstance(self.pattern, GridPattern):
            raise TypeError(f"{self.pattern} has no spans")
        return self.pattern.spans(self.query_grid, self.key_grid)

    @cached_property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """For each axis, the zero keys before and after it that take part in the softmax."""
        return padding(self.pattern, self.query_grid, self.key_grid)

    @cached_property
    def pairs(self) -> int:
        """Exact number of (query, key) pairs of one head, extra keys included; the mean (rounded up) over the heads of
        a pattern by heads."""
        pairs = count_pairs(self.pattern, self.query_grid, self.key_grid)
        if isinstance(self.pattern, PerHead):
            pairs = -(-pairs // self.pattern.heads)
        return pairs + self.queries * self.extra

    def but(self, **changes: object) -> Problem:
        """The same problem with other values."""
        return replace(self, **changes)  # type: ignore[arg-type]


def _extent(spans: Spans) -> int:
    """Keys of an axis between the first and the last that some query sees."""
    seen = spans.stop > spans.start
    if not seen.any():
        return 0
    return max(0, min(int(spans.stop[seen].max()), spans.keys) - max(int(spans.start[seen].min()), 0))


def padding(pattern: Pattern, query_grid: Grid, key_grid: Grid) -> tuple[tuple[int, int], ...]:
    """For each axis, the zero keys before and after it that take part in the softmax.

    Raises ``ValueError`` when the parts of a union pad differently.
    """
    if isinstance(pattern, GridPattern):
        return tuple(spans.padding for spans in pattern.spans(query_grid, key_grid))
    if isinstance(pattern, Union):
        paddings = {padding(part, query_grid, key_grid) for part in pattern.parts}
        if len(paddings) > 1:
            raise ValueError(f"{pattern}: parts that pad the keys with zeros differently cannot be joined")
        return paddings.pop()
    return ((0, 0),) * len(key_grid)


def bias_shape(pattern: Pattern, query_grid: Grid, key_grid: Grid) -> tuple[int, ...]:
    """Shape of a relative bias table without its heads axis; ``ValueError`` where the pattern takes none."""
    if isinstance(pattern, GridPattern):
        return pattern.bias_shape(query_grid, key_grid)
    if isinstance(pattern, PerHead):
        shapes = {bias_shape(part, query_grid, key_grid) for part in pattern.parts}
        if len(shapes) == 1:
            return shapes.pop()
        raise ValueError(f"bias: the heads of {pattern} have tables of different shapes, {sorted(shapes)}")
    raise ValueError(f"bias: {pattern} is no grid pattern and takes no relative bias; it must be None")


def describe(
    pattern: Pattern,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    extra_key: Tensor | None,
    extra_value: Tensor | None,
    scale: float | None,
    grad: bool = False,
) -> Problem:
    """The problem that tensors pose. Raises ``ValueError`` that names the argument, what it was and what it may be."""
    axes = query.ndim - 3
    if not 1 <= axes <= 3:
        raise ValueError(
            f"query has shape {_shape(query)}; it must be [batch, *grid, heads, head_dim], grid of 1 to 3 axes"
        )
    if query.dtype not in DTYPES:
        raise ValueError(f"query has dtype {query.dtype}; it may be {', '.join(map(str, DTYPES))}")
    batch, *query_grid, heads, head_dim = query.shape
    if key.ndim != query.ndim or key.shape[0] != batch or key.shape[-1] != head_dim:
        raise ValueError(
            f"key has shape {_shape(key)}; beside a query of shape {_shape(query)} it must be "
            f"[{batch}, *key_grid of {axes} axes, kv_heads, {head_dim}]"
        )
    if value.ndim != key.ndim or value.shape[:-1] != key.shape[:-1]:
        raise ValueError(f"value has shape {_shape(value)}; it must be {_shape(key)[:-1]} with any last axis")
    kv_heads, value_dim = key.shape[-2], value.shape[-1]
    if kv_heads < 1 or heads % kv_heads or head_dim < 1 or value_dim < 1:
        raise ValueError(
            f"query has {heads} heads of {head_dim} and key has {kv_heads} heads, value's width is {value_dim}; "
            "the heads of key must divide those of query, and widths be at least 1"
        )
    extra = _extra(query, key, value, extra_key, extra_value)
    for name, tensor in (("key", key), ("value", value), ("extra_key", extra_key), ("extra_value", extra_value)):
        if tensor is not None and (tensor.dtype != query.dtype or tensor.device != query.device):
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}; it must be {query.dtype} on {query.device}, as query is"
            )
    grids = tuple(query_grid), tuple(key.shape[1:-2])
    pattern.check(*grids)
    if isinstance(pattern, PerHead) and pattern.heads != heads:
        raise ValueError(f"pattern {pattern} is made for {pattern.heads} heads; query has {heads}")
    padding(pattern, *grids)
    if bias is not None:
        shape = (heads, *bias_shape(pattern, *grids))
        if tuple(bias.shape) != shape:
            raise ValueError(f"bias has shape {_shape(bias)}; for {pattern} on {grids[0]} it must be {shape}")
        if bias.dtype not in DTYPES or bias.device != query.device:
            raise ValueError(f"bias is {bias.dtype} on {bias.device}; it must be floating and on {query.device}")
    return Problem(
        pattern, *grids, batch, heads, kv_heads, head_dim, value_dim, extra, bias is not None,
        head_dim**-0.5 if scale is None else float(scale), query.dtype, query.device, grad,
    )  # fmt: skip


def _extra(query: Tensor, key: Tensor, value: Tensor, extra_key: Tensor | None, extra_value: Tensor | None) -> int:
    if (extra_key is None) != (extra_value is None):
        given, other = ("extra_key", "extra_value") if extra_value is None else ("extra_value", "extra_key")
        raise ValueError(f"{other} is None although {given} is given; they come together or not at all")
    if extra_key is None or extra_value is None:
        return 0
    for name, tensor, width in (("extra_key", extra_key, key.shape[-1]), ("extra_value", extra_value, value.shape[-1])):
        if tensor.ndim != 4 or (tensor.shape[0], *tensor.shape[2:]) != (query.shape[0], key.shape[-2], width):
            raise ValueError(
                f"{name} has shape {_shape(tensor)}; it must be [{query.shape[0]}, extra, {key.shape[-2]}, {width}]"
            )
    if extra_key.shape[1] != extra_value.shape[1]:
        raise ValueError(
            f"extra_value has {extra_value.shape[1]} tokens; it must have {extra_key.shape[1]}, as extra_key has"
        )
    return extra_key.shape[1]


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
