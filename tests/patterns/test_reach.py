from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.patterns import (
    Blocks,
    Causal,
    Full,
    Halo,
    Local,
    Neighborhood,
    Offsets,
    PerHead,
    Product,
    Sink,
    SlidingWindow,
    Union,
)
from fovea.patterns.reach import receptive_field, shard_halo
from patterns.strategies import axes, blocks, grids, patterns


@st.composite
def stacks(draw):
    grid = draw(grids())
    layer = st.builds(Product, st.tuples(*(axes(n) for n in grid)))
    layer = st.one_of(layer, blocks()) if len(grid) == 1 else layer
    return draw(st.lists(layer, min_size=1, max_size=4)), grid


def real_mask(pattern, grid) -> np.ndarray:
    """``[queries, real keys]``, of all heads together."""
    mask = pattern.mask(grid)
    mask = mask.any(0) if mask.ndim == 3 else mask
    padding = pattern.padding(grid, grid)
    mask = mask.reshape(len(mask), *(b + n + a for n, (b, a) in zip(grid, padding, strict=True)))
    inside = tuple(slice(b, b + n) for n, (b, _) in zip(grid, padding, strict=True))
    return mask[:, *inside].reshape(len(mask), -1)


@given(stacks(), st.data())
def test_mixed_layers_against_matrices(case, data):
    layers, grid = case
    query = tuple(data.draw(st.integers(0, n - 1)) for n in grid)
    field = receptive_field(layers, grid, query)
    seen = np.zeros(prod(grid), np.bool_)
    seen[np.ravel_multi_index(query, grid)] = True
    for layer, pattern in enumerate(reversed(layers), start=1):
        seen = seen | real_mask(pattern, grid)[seen].any(0)
        assert (field.seen(layer).ravel() == seen).all()
        assert field.counts[layer - 1] == seen.sum()
    where = np.argwhere(seen.reshape(grid))
    assert field.box() == tuple(zip(where.min(0), where.max(0), strict=True))


@given(patterns(), st.data())
def test_one_layer_is_the_mask(case, data):
    pattern, grid = case
    query = tuple(data.draw(st.integers(0, n - 1)) for n in grid)
    row = real_mask(pattern, grid)[np.ravel_multi_index(query, grid)].reshape(grid).copy()
    row[query] = True
    assert (pattern.receptive_field(grid, query).seen() == row).all()


@pytest.mark.parametrize("count", [100, 1023, 4096])
def test_power_attention_reaches_all_blocks_along_one_bits(count):
    """Any earlier block in at most as many layers as its distance has one-bits."""
    field = receptive_field(Blocks(1, (Local(2), Offsets(tuple(1 << k for k in range(13))))), count, depth=13)
    distance = count - 1 - np.arange(count)
    bits = np.array([int(d).bit_count() for d in distance])
    assert (field.depths <= bits).all()
    assert field.complete_after is not None


def test_baselines_fail_as_the_paper_says():
    assert receptive_field(Blocks.dilated(1, 20), 128, depth=20).complete_after is None
    longnet = Blocks.longnet(1, ((8, 1), (16, 2), (32, 4), (64, 8), (128, 16)))
    assert receptive_field(longnet, 128, depth=20).counts[-1] == 80
    assert receptive_field(Blocks.sliding(1, 9), 128, depth=8).complete_after is None


@pytest.mark.parametrize(
    ("layers", "counts"),
    [
        ([Blocks(1, (Local(5), Sink(1), Offsets((12, 29, 47, 61))))], [10, 40, 99, 128, 128]),
        ([Blocks(1, (Local(3), Sink(1), Offsets((5, 16, 23, 36, 53, 63))))], [10, 45, 108, 128, 128]),
        (
            [Blocks(1, (Local(5), Sink(1), Offsets((back,)))) for back in (8, 16, 32, 64)],
            [7, 21, 57, 110, 126, 128, 128],
        ),
    ],
)
def test_searched_and_cycling_offsets(layers, counts):
    """Variants with one distance a layer or searched distances, last layer first."""
    assert receptive_field(layers, 128, depth=len(counts)).counts.tolist() == counts


def test_heads_are_joined():
    pattern = PerHead((SlidingWindow(1), Neighborhood(3, dilation=4)))
    assert np.flatnonzero(receptive_field(pattern, 16, 8).seen()).tolist() == [4, 7, 8, 12]


def test_sets_of_queries():
    marked = np.zeros((8, 8), np.bool_)
    marked[0, 0] = marked[7, 7] = True
    assert receptive_field(Neighborhood((3, 3)), (8, 8), marked).counts.tolist() == [18]


def test_large_grids_take_linear_work():
    field = receptive_field(Neighborhood((7, 7), dilation=(4, 4)), (512, 512), (256, 256), depth=3)
    assert field.counts.tolist() == [49, 169, 361]
    assert receptive_field(Blocks.power(256), 1 << 17, depth=12).complete_after is not None


@settings(max_examples=60)
@given(patterns(), st.data())
def test_halos_hold_what_a_shard_sees(case, data):
    pattern, grid = case
    shards = tuple(data.draw(st.integers(1, n)) for n in grid)
    mask = real_mask(pattern, grid).reshape(*grid, *grid)
    dense = len(grid)
    for axis, halos in enumerate(shard_halo(pattern, grid, shards)):
        seen = mask.any(tuple(a for a in range(2 * dense) if a not in (axis, dense + axis)))
        assert [h.first for h in halos] == list(range(0, grid[axis], -(-grid[axis] // shards[axis])))
        for halo in halos:
            keys = np.flatnonzero(seen[halo.first : halo.last + 1].any(0))
            keys = np.append(keys, [halo.first, halo.last])
            assert halo.first - halo.before <= keys.min()
            assert halo.last + halo.after >= keys.max()
            if not isinstance(pattern, Union | PerHead):
                assert (halo.first - halo.before, halo.last + halo.after) == (keys.min(), keys.max())


def test_halo_through_layers():
    (axis,) = shard_halo([Neighborhood(5), SlidingWindow(3)], 32, 4)
    assert [(h.before, h.after) for h in axis] == [(0, 2), (5, 2), (5, 2), (5, 0)]
    assert Causal().shard_halo(16, 4)[0][3].before == 12
    assert Halo(4, 3, "zero").shard_halo(16, 4)[0][0].before == 0


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="query=\\(9,\\)"):
        receptive_field(Full(), 9, 9)
    with pytest.raises(ValueError, match="layers is empty"):
        receptive_field([], 9)
    with pytest.raises(ValueError, match="boolean grid"):
        receptive_field(Full(), 9, np.zeros(9))
    with pytest.raises(ValueError, match="shards"):
        shard_halo(Full(), (9, 9), (2,))
