from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from fovea.patterns import Blocks, Full, Halo, Neighborhood, PerHead, SlidingWindow, Union, Window
from fovea.patterns.flex import block_mask, mask_mod
from fovea.patterns.states import orders
from patterns.strategies import blocks, cross_grids, patterns
from patterns.test_states import exact, in_order


def dense(mod, heads: int, queries: int, keys: int) -> np.ndarray:
    """``[heads, queries, keys]``: the mask function for every pair."""
    pair = torch.vmap(lambda h, q, k: mod(0, h, q, k), in_dims=(None, None, 0))
    pair = torch.vmap(torch.vmap(pair, in_dims=(None, 0, None)), in_dims=(0, None, None))
    return pair(torch.arange(heads), torch.arange(queries), torch.arange(keys)).numpy()


def check(pattern, queries, keys, **options) -> None:
    found = block_mask(pattern, queries, keys, device="cpu", **options)
    heads = pattern.heads if isinstance(pattern, PerHead) else 1
    order = orders(pattern, queries, keys, options.get("query_tile"), options.get("key_tile"))
    lengths = tuple(o.length for o in order)
    masks = pattern.mask(queries, keys)
    masks = masks if isinstance(pattern, PerHead) else masks[None]
    true = np.stack([in_order(mask, *order) for mask in masks])
    assert (dense(found.mask_mod, heads, *lengths) == true).all()
    made = create_block_mask(found.mask_mod, None, heads, *lengths, device="cpu", BLOCK_SIZE=found.BLOCK_SIZE)
    assert found.seq_lengths == made.seq_lengths
    assert torch.equal(found.to_dense(), made.to_dense())
    if exact(pattern):
        for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices", "q_num_blocks"):
            assert torch.equal(getattr(found, name), getattr(made, name)), name


@settings(max_examples=60)
@given(patterns(), st.integers(1, 20), st.integers(1, 20))
def test_row_major(case, query_block, key_block):
    pattern, grid = case
    check(pattern, grid, grid, block_size=(query_block, key_block))


@settings(max_examples=60)
@given(patterns(), st.data())
def test_by_tiles(case, data):
    pattern, grid = case
    query_tile, key_tile = (tuple(data.draw(st.integers(1, 4)) for _ in grid) for _ in range(2))
    check(pattern, grid, grid, query_tile=query_tile, key_tile=key_tile)


@settings(max_examples=40)
@given(cross_grids(), st.integers(1, 20))
def test_between_two_grids(case, block):
    pattern, queries, keys = case
    check(pattern, queries, keys, block_size=block)


@settings(max_examples=30)
@given(blocks(), st.integers(1, 60), st.integers(0, 30), st.integers(1, 20))
def test_decoding_and_tables(pattern, queries, before, block):
    keys = queries + before
    check(pattern, (queries,), (keys,), block_size=block)
    table = pattern.table(queries, keys)
    assert (dense(mask_mod(table), 1, queries, keys) == pattern.mask(queries, keys)).all()
    found, made = block_mask(table, block_size=block), block_mask(pattern, queries, keys, block_size=block)
    assert torch.equal(found.kv_indices, made.kv_indices)
    assert torch.equal(found.full_kv_num_blocks, made.full_kv_num_blocks)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("pattern", "grid"),
    [
        (Neighborhood((5, 6), stride=2), (9, 16)),
        (Neighborhood((3, 3), dilation=(3, 4)), (12, 12)),
        (Union((Window((4, 4), 2), Neighborhood((3, 3), dilation=2))), (9, 11)),
        (PerHead((Full(), SlidingWindow(20))), (150,)),
        (Blocks.power(16, 2), (200,)),
        (Halo((4, 4), 2, "zero"), (8, 12)),
    ],
)
def test_flex_attention_takes_them(pattern, grid):
    """FlexAttention with our block mask against softmax under the boolean mask."""
    blocks = block_mask(pattern, grid, block_size=128)
    keys = blocks.seq_lengths[1]
    query = torch.randn(1, 2, prod(grid), 16)
    key, value = torch.randn(2, 1, 2, keys, 16)
    mask = torch.from_numpy(pattern.mask(grid))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    found = flex_attention(query, key, value, block_mask=blocks)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_missing_grid():
    with pytest.raises(ValueError, match="query_grid is missing"):
        mask_mod(Full())


def test_methods_of_patterns():
    pattern = Neighborhood(5)
    assert torch.equal(
        pattern.block_mask(40, block_size=8).to_dense(), block_mask(pattern, 40, block_size=8).to_dense()
    )
    assert (dense(pattern.mask_mod(9), 1, 9, 9)[0] == pattern.mask(9)).all()
