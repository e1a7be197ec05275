"""Random problems for the operator, shared by the tests of its backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor

from fovea.patterns import (
    Blocks,
    Causal,
    Every,
    Full,
    GridPattern,
    Halo,
    Local,
    Neighborhood,
    Offsets,
    Pattern,
    PerHead,
    Powers,
    Product,
    Segment,
    Sink,
    SlidingWindow,
    Union,
    Window,
)
from fovea.patterns.pattern import Grid
from patterns.strategies import chosen

NAMES = ("query", "key", "value", "bias", "extra_key", "extra_value")


@dataclass(frozen=True)
class Case:
    """One call of the operator without its numbers."""

    pattern: Pattern
    query_grid: Grid
    key_grid: Grid
    batch: int = 1
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 8
    value_dim: int = 8
    extra: int = 0
    bias: bool = False
    scale: float | None = None
    lse: bool = True

    def tensors(self, dtype: torch.dtype, seed: int = 0) -> dict[str, Any]:
        """Arguments of the operator by name, drawn from ``seed``; all want gradients."""
        source = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=source, dtype=torch.float64).to(dtype).requires_grad_()

        given = {
            "query": draw(self.batch, *self.query_grid, self.heads, self.head_dim),
            "key": draw(self.batch, *self.key_grid, self.kv_heads, self.head_dim),
            "value": draw(self.batch, *self.key_grid, self.kv_heads, self.value_dim),
        }
        if self.bias:
            part = self.pattern.parts[0] if isinstance(self.pattern, PerHead) else self.pattern
            assert isinstance(part, GridPattern)
            given["bias"] = draw(self.heads, *part.bias_shape(self.query_grid, self.key_grid))
        if self.extra:
            given["extra_key"] = draw(self.batch, self.extra, self.kv_heads, self.head_dim)
            given["extra_value"] = draw(self.batch, self.extra, self.kv_heads, self.value_dim)
        return given


@st.composite
def neighborhoods(draw: st.DrawFn, size: int) -> Neighborhood:
    """A neighborhood of one axis of ``size`` tokens."""
    dilation = draw(st.integers(1, max(1, size // 2)))
    window = draw(st.integers(1, size // dilation))
    return Neighborhood(window, draw(st.integers(1, window)), dilation, draw(st.booleans()))


@st.composite
def axis_patterns(draw: st.DrawFn, size: int) -> GridPattern:
    """Any grid pattern of one axis that adds no zero keys."""
    kind = draw(st.sampled_from(["full", "causal", "sliding", "window", "halo", "shift", "neighborhood"]))
    if kind == "full":
        return Full()
    if kind == "causal":
        return Causal()
    if kind == "sliding":
        return SlidingWindow(draw(st.integers(0, size)), draw(st.integers(0, size)))
    if kind == "window":
        window = draw(st.integers(1, size + 2))
        return Window(window, draw(st.integers(0, window - 1)))
    if kind == "halo":
        return Halo(draw(st.integers(1, size)), draw(st.integers(0, size)))
    if kind == "shift":
        block = draw(st.integers(1, size))
        return Halo(block, draw(st.integers(0, (size - block) // 2)), "shift")
    return draw(neighborhoods(size))


@st.composite
def grid_cases(draw: st.DrawFn) -> tuple[GridPattern, Grid]:
    """A grid of 1 to 3 axes and a grid pattern that fits it."""
    grid = draw(st.sampled_from([(1,), (7,), (16,), (33,), (1, 5), (6, 7), (9, 4), (2, 3, 4), (3, 1, 5)]))
    if draw(st.booleans()):
        block = draw(st.integers(1, 4))
        return Halo(block, draw(st.integers(0, 3)), "zero"), grid
    parts = tuple(draw(axis_patterns(size)) for size in grid)
    return (parts[0] if len(grid) == 1 else Product(parts)), grid


@st.composite
def block_patterns(draw: st.DrawFn) -> Blocks:
    """Any block pattern."""
    terms = draw(
        st.lists(
            st.one_of(
                st.builds(Local, st.integers(1, 4), st.integers(1, 2)),
                st.builds(Sink, st.integers(1, 2)),
                st.just(Powers()),
                st.builds(Every, st.integers(1, 4)),
                st.builds(lambda back: Offsets(tuple(back)), st.lists(st.integers(0, 5), min_size=1, max_size=3)),
                st.builds(Segment, st.sampled_from([2, 4, 8]), st.sampled_from([1, 2])),
            ),
            min_size=1,
            max_size=3,
        )
    )
    return Blocks(draw(st.integers(1, 7)), tuple(terms))


@st.composite
def patterns(draw: st.DrawFn, heads: int) -> tuple[Pattern, Grid, Grid]:
    """Any pattern, with grids of queries and keys that it fits."""
    kind = draw(st.sampled_from(["grid", "grid", "blocks", "chosen", "decode", "union", "perhead"]))
    if kind == "grid":
        pattern, grid = draw(grid_cases())
        return pattern, grid, grid
    size = draw(st.sampled_from([1, 6, 17, 40]))
    if kind == "blocks":
        return draw(block_patterns()), (size,), (size,)
    if kind == "chosen":
        queries = draw(st.integers(1, size))
        return draw(chosen(queries, size)), (queries,), (size,)
    if kind == "decode":
        sequence = st.one_of(
            block_patterns(), st.just(Causal()), st.builds(SlidingWindow, st.integers(0, 9), st.integers(0, 3))
        )
        return draw(sequence), (draw(st.integers(1, size)),), (size,)
    parts = st.one_of(block_patterns(), axis_patterns(size), chosen(size))
    if kind == "union":
        return Union(tuple(draw(st.lists(parts, min_size=1, max_size=3)))), (size,), (size,)
    few = draw(st.lists(parts, min_size=1, max_size=2))
    return PerHead(tuple(draw(st.sampled_from(few)) for _ in range(heads))), (size,), (size,)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any problem of the operator, small."""
    kv_heads = draw(st.integers(1, 2))
    heads = kv_heads * draw(st.integers(1, 2))
    pattern, query_grid, key_grid = draw(patterns(heads))
    return Case(
        pattern,
        query_grid,
        key_grid,
        batch=draw(st.integers(1, 2)),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([1, 4, 8, 11])),
        value_dim=draw(st.sampled_from([1, 4, 8, 13])),
        extra=draw(st.sampled_from([0, 0, 3])),
        bias=isinstance(pattern, GridPattern) and draw(st.booleans()),
        scale=draw(st.sampled_from([None, 0.3, 0.0, -0.3])),
        lse=draw(st.booleans()),
    )
