from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.patterns import Blocks, Full, Neighborhood, PerHead, SlidingWindow, Union
from fovea.patterns.states import block_pairs, block_states, dilation_of, orders
from patterns.strategies import blocks, blocks_mask, cross_grids, patterns


def in_order(mask: np.ndarray, query, key) -> np.ndarray:
    """A row-major mask ``[queries, keys]`` in other orders; places without a token attend to nothing."""
    rows, columns = (_tokens(order) for order in (query, key))
    return mask[np.maximum(rows, 0)][:, np.maximum(columns, 0)] & (rows >= 0)[:, None] & (columns >= 0)


def _tokens(order) -> np.ndarray:
    return order.index.ravel() if hasattr(order, "index") else np.arange(order.length)


def states_of(mask: np.ndarray, query_block: int, key_block: int) -> np.ndarray:
    """By counting the pairs of every block."""
    queries, keys = (-(-n // block) for n, block in zip(mask.shape, (query_block, key_block), strict=True))
    padded = np.zeros((queries * query_block, keys * key_block), np.bool_)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    counts = padded.reshape(queries, query_block, keys, key_block).sum((1, 3))
    return (counts > 0).astype(np.uint8) + (counts == query_block * key_block)


def expected(pattern, query_grid, key_grid, tiles, size) -> np.ndarray:
    order = orders(pattern, query_grid, key_grid, *tiles)
    masks = np.atleast_3d(pattern.mask(query_grid, key_grid)) if not isinstance(pattern, PerHead) else None
    heads = [part.mask(query_grid, key_grid) for part in pattern.parts] if masks is None else [masks[..., 0]]
    found = np.stack([states_of(in_order(mask, *order), *size) for mask in heads])
    return found if isinstance(pattern, PerHead) else found[0]


def exact(pattern) -> bool:
    """Whether full blocks are found exactly: not so when parts cover a block only together."""
    return not any(isinstance(part, Union) for part in (pattern, *getattr(pattern, "parts", ())))


@given(patterns(), st.integers(1, 20), st.integers(1, 20))
def test_row_major_blocks(case, query_block, key_block):
    pattern, grid = case
    states = block_states(pattern, grid, query_block=query_block, key_block=key_block)
    true = expected(pattern, grid, grid, (None, None), (query_block, key_block))
    assert ((states > 0) == (true > 0)).all()
    assert (states <= true).all()
    if exact(pattern):
        assert (states == true).all()


@given(patterns(), st.data())
def test_tiles_as_blocks(case, data):
    pattern, grid = case
    tiles = tuple(tuple(data.draw(st.integers(1, 4)) for _ in grid) for _ in range(2))
    states = block_states(pattern, grid, query_tile=tiles[0], key_tile=tiles[1])
    true = expected(pattern, grid, grid, tiles, (prod(tiles[0]), prod(tiles[1])))
    assert ((states > 0) == (true > 0)).all()
    assert (states <= true).all()
    if exact(pattern):
        assert (states == true).all()


@given(cross_grids(), st.integers(1, 20), st.integers(1, 20), st.data())
def test_blocks_between_two_grids(case, query_block, key_block, data):
    pattern, queries, keys = case
    states = block_states(pattern, queries, keys, query_block=query_block, key_block=key_block)
    assert (states == expected(pattern, queries, keys, (None, None), (query_block, key_block))).all()
    tiles = tuple(tuple(data.draw(st.integers(1, 4)) for _ in queries) for _ in range(2))
    states = block_states(pattern, queries, keys, query_tile=tiles[0], key_tile=tiles[1])
    assert (states == expected(pattern, queries, keys, tiles, (prod(tiles[0]), prod(tiles[1])))).all()


@given(blocks(), st.integers(1, 60), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20))
def test_pairs_of_blocks_that_are_not_the_tables(pattern, queries, before, query_block, key_block):
    keys = queries + before
    mask = blocks_mask(pattern, queries, keys)
    pairs = block_pairs(pattern.table(queries, keys), query_block, key_block)
    for row, line in enumerate(pairs):
        for column, count in enumerate(line):
            part = mask[row * query_block : (row + 1) * query_block, column * key_block : (column + 1) * key_block]
            assert count == part.sum()
    table = pattern.table(queries, keys)
    assert (block_states(table, query_block=8, key_block=8) == states_of(mask, 8, 8)).all()


def test_shared_dilation():
    near, far = Neighborhood(3, dilation=2), Neighborhood(3, dilation=3)
    assert dilation_of(Union((near, near)), (9,), (9,)) == (2,)
    assert dilation_of(Union((near, far)), (9,), (9,)) == (1,)
    assert dilation_of(PerHead((near, Full())), (9,), (9,)) == (1,)


def test_states_grow_with_blocks_and_not_with_pairs():
    """A million tokens: the mask would have 10^12 pairs."""
    states = block_states(SlidingWindow(4095), 1 << 20, query_block=8192, key_block=4096)
    assert states.shape == (128, 256)
    assert (states[5] > 0).nonzero()[0].tolist() == [9, 10, 11]
    states = block_states(Blocks.power(256), 1 << 20, query_block=4096, key_block=4096)
    assert states[-1, 0] > 0
    states = block_states(Neighborhood((80, 80), stride=16), (1024, 1024), query_tile=(64, 64), key_tile=(64, 64))
    assert states.shape == (256, 256)


def test_one_tile_alone_is_refused():
    with pytest.raises(ValueError, match="give both or neither"):
        block_states(Full(), 8, query_tile=(4,))
    with pytest.raises(ValueError, match="query_grid is missing"):
        block_states(Full())
