"""Random patterns, and what they mean word for word from the definitions."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import strategies as st

from fovea.patterns import (
    Blocks,
    Causal,
    Chosen,
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

MOST = {1: 40, 2: 9, 3: 5}
"""Longest axis of random grids, by number of axes."""


@st.composite
def neighborhoods(draw, size: int) -> Neighborhood:
    window = draw(st.integers(1, size))
    dilation = draw(st.integers(1, min(4, size // window)))
    return Neighborhood(window, draw(st.integers(1, window)), dilation, draw(st.booleans()))


@st.composite
def windows(draw, border: str = "mask") -> Window:
    size = draw(st.integers(1, 9))
    return Window(size, draw(st.integers(0, size - 1)), border)


def halos(*borders: str) -> st.SearchStrategy[Halo]:
    return st.builds(Halo, st.integers(1, 9), st.integers(0, 4), st.sampled_from(borders))


def free_axes() -> st.SearchStrategy[GridPattern]:
    """Patterns of one axis that take queries and keys of any number and pad nothing."""
    return st.one_of(
        st.just(Full()),
        st.just(Causal()),
        st.builds(SlidingWindow, st.integers(0, 9), st.integers(0, 9)),
        windows(),
        halos("mask"),
    )


def axes(size: int, *, padded: bool = True) -> st.SearchStrategy[GridPattern]:
    """Patterns of one axis of ``size`` queries and keys."""
    return st.one_of(neighborhoods(size), free_axes(), *([halos("zero"), windows("zero")] if padded else []))


@st.composite
def grids(draw, axes: int | None = None) -> tuple[int, ...]:
    axes = draw(st.integers(1, 3)) if axes is None else axes
    return tuple(draw(st.integers(1, MOST[axes])) for _ in range(axes))


@st.composite
def products(draw, *, padded: bool = True, axes_of_grid: int | None = None) -> tuple[Product, tuple[int, ...]]:
    """A pattern and a grid it has a meaning on."""
    grid = draw(grids(axes_of_grid))
    return Product(tuple(draw(axes(n, padded=padded)) for n in grid)), grid


@st.composite
def cross_grids(draw) -> tuple[GridPattern, tuple[int, ...], tuple[int, ...]]:
    """A pattern with queries and keys on different grids."""
    queries = draw(grids())
    keys = tuple(draw(st.integers(1, 2 * MOST[len(queries)])) for _ in queries)
    return Product(tuple(draw(st.one_of(free_axes(), halos("zero"), windows("zero"))) for _ in queries)), queries, keys


def terms() -> st.SearchStrategy:
    powers = st.sampled_from((1, 2, 4, 8))
    return st.one_of(
        st.builds(Local, st.integers(1, 6), st.integers(1, 3)),
        st.builds(Sink, st.integers(1, 3)),
        st.just(Powers()),
        st.builds(Offsets, st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)),
        st.builds(Every, st.integers(1, 6)),
        st.builds(Segment, powers, powers),
    )


def blocks() -> st.SearchStrategy[Blocks]:
    return st.builds(Blocks, st.integers(1, 9), st.lists(terms(), min_size=1, max_size=3).map(tuple))


@st.composite
def chosen(draw, queries: int, keys: int | None = None) -> Chosen:
    """A table of blocks for so many queries and keys."""
    causal = keys is None or draw(st.booleans())
    keys = queries if keys is None else keys
    causal = causal and draw(st.booleans()) and queries <= keys
    size = draw(st.integers(1, 9))
    first = (keys - queries) // size if causal else 0
    rows = -(-(keys if causal else queries) // size) - first
    blocks = -(-keys // size)
    lists = [
        draw(st.lists(st.integers(0, min(blocks - 1, first + row) if causal else blocks - 1), max_size=4))
        for row in range(rows)
    ]
    return Chosen(size, tuple(map(tuple, lists)), causal)


@st.composite
def patterns(draw, *, padded: bool = True) -> tuple[Pattern, tuple[int, ...]]:
    """Any pattern and a grid of queries and keys."""
    grid = draw(grids())
    whole = st.builds(Product, st.tuples(*(axes(n, padded=False) for n in grid)))
    parts = st.one_of(whole, blocks(), chosen(grid[0])) if len(grid) == 1 else whole
    several = st.lists(parts, min_size=1, max_size=3).map(tuple)
    unions = st.builds(Union, several)
    heads = st.lists(st.one_of(parts, unions), min_size=1, max_size=3).map(tuple)
    kinds = [parts, unions, st.builds(PerHead, heads)]
    if padded:
        kinds.append(st.builds(Product, st.tuples(*(axes(n) for n in grid))))
    return draw(st.one_of(kinds)), grid


def neighborhood_window(i: int, size: int, window: int, stride: int, dilation: int, causal: bool) -> set[int]:
    """The window of coordinate ``i``, as the definition of the mask has it."""
    group, place = i % dilation, i // dilation
    members = -(-(size - group) // dilation)
    if causal:
        leader = min((place // stride) * stride + stride - 1, members - 1)
        start, end = max(leader - window + 1, 0), place + 1
    else:
        leader = min((place // stride) * stride + stride // 2, members - 1)
        start = min(max(leader - window // 2, 0), members - window)
        end = start + window
    return {t * dilation + group for t in range(start, end)}


def axis_window(pattern: GridPattern, i: int, queries: int, keys: int) -> set[int]:
    """The key coordinates that query ``i`` of one axis sees, zero keys with theirs outside of ``0..keys-1``."""
    end, grid = i + keys - queries, i * keys // queries
    every = range(keys)
    match pattern:
        case Full():
            return set(every)
        case Causal():
            return {j for j in every if j <= end}
        case SlidingWindow(left=left, right=right):
            return {j for j in every if end - left <= j <= end + right}
        case Window(size=size, shift=shift, border=border):
            keys = -(-keys // size) * size if border == "zero" else keys
            return {j for j in range(keys) if (j - shift) // size == (grid - shift) // size}
        case Halo(block=block, halo=halo, border=border):
            first = grid // block * block - halo
            seen = set(range(first, first + block + 2 * halo))
            return seen if border == "zero" else seen & set(every)
        case Neighborhood(window=window, stride=stride, dilation=dilation, causal=causal):
            return neighborhood_window(i, keys, window, stride, dilation, causal)
    raise AssertionError(pattern)


def product_mask(pattern: Product, query_grid: tuple[int, ...], key_grid: tuple[int, ...]) -> np.ndarray:
    """``[queries, padded keys]``, pair by pair from the definitions."""
    padding = pattern.padding(query_grid, key_grid)
    padded = tuple(before + n + after for n, (before, after) in zip(key_grid, padding, strict=True))
    mask = np.zeros((prod(query_grid), prod(padded)), np.bool_)
    windows = [
        [axis_window(part, i, queries, keys) for i in range(queries)]
        for part, queries, keys in zip(pattern.parts, query_grid, key_grid, strict=True)
    ]
    for row, query in enumerate(np.ndindex(*query_grid)):
        for column, key in enumerate(np.ndindex(*padded)):
            mask[row, column] = all(
                k - before in windows[axis][q]
                for axis, (q, k, (before, _)) in enumerate(zip(query, key, padding, strict=True))
            )
    return mask


def term_sees(term, row: int, block: int) -> bool:
    """Whether a query block sees a key block that is not after it, from the formulas of the papers."""
    back = row - block
    match term:
        case Local(window=window, dilation=dilation):
            return back < window and back % dilation == 0
        case Sink(count=count):
            return block < count
        case Powers():
            return back & (back - 1) == 0
        case Offsets(back=distances):
            return back in distances
        case Every(stride=stride):
            return back % stride == 0
        case Segment(length=length, rate=rate):
            return (row ^ block) < length and (row | block) & (rate - 1) == 0
    raise AssertionError(term)


def blocks_mask(pattern: Blocks, queries: int, keys: int) -> np.ndarray:
    mask = np.zeros((queries, keys), np.bool_)
    for i in range(queries):
        at = i + keys - queries
        for j in range(at + 1):
            mask[i, j] = any(term_sees(term, at // pattern.size, j // pattern.size) for term in pattern.terms)
    return mask
