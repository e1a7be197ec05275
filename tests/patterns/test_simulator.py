from __future__ import annotations

import random
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.patterns import Halo, Neighborhood
from fovea.patterns.simulator import block_sparse_stride, powers_of_two, search, simulate
from patterns.strategies import products

HUNYUAN, FLUX, COSMOS = (30, 48, 80), (256, 256), (16, 44, 80)

# The table of the specification: layout, window, stride, tiles of queries and keys, and the three bounds as printed.
TABLE = [
    (HUNYUAN, (18, 24, 24), 1, (4, 8, 8), (2, 8, 8), 11.1, 5.24, 3.27),
    (HUNYUAN, (18, 24, 24), 1, (2, 8, 8), (2, 8, 8), 11.1, 5.44, 3.60),
    (HUNYUAN, (18, 24, 24), 1, (4, 4, 8), (4, 4, 8), 11.1, 6.24, 4.57),
    (HUNYUAN, (18, 24, 24), (16, 8, 8), (4, 8, 8), (2, 8, 8), 11.1, 11.1, 11.1),
    (HUNYUAN, (18, 24, 24), (16, 8, 8), (2, 8, 8), (2, 8, 8), 11.1, 11.1, 11.1),
    (HUNYUAN, (18, 24, 24), (16, 8, 8), (4, 4, 8), (4, 4, 8), 11.1, 10.7, 10.7),
    (FLUX, (80, 80), 1, (16, 16), (16, 8), 10.24, 7.06, 6.10),
    (FLUX, (80, 80), 16, (16, 16), (16, 8), 10.24, 10.24, 10.24),
    (FLUX, (80, 80), 16, (16, 8), (16, 8), 10.24, 10.24, 10.24),
    (COSMOS, (16, 24, 16), 1, (8, 4, 8), (4, 4, 8), 9.17, 6.09, 5.24),
    (COSMOS, (16, 24, 16), (1, 8, 16), (4, 4, 8), (4, 4, 8), 9.17, 9.17, 9.17),
    ((24, 44, 80), (24, 12, 24), (1, 4, 8), (4, 4, 8), (4, 4, 8), 12.2, 12.2, 12.2),
    ((32768,), (2048,), 1, (128,), (128,), 16, 15.1, 15.06),
    ((32768,), (2048,), 256, (128,), (128,), 16, 16, 16),
]


@pytest.mark.parametrize(("layout", "window", "stride", "query_tile", "key_tile", "flops", "tiles", "worst"), TABLE)
def test_published_table(layout, window, stride, query_tile, key_tile, flops, tiles, worst):
    found = simulate(Neighborhood(window, stride), layout, query_tile=query_tile, key_tile=key_tile)
    for bound, printed in ((found.flop_bound, flops), (found.tile_bound, tiles), (found.worst_tile_bound, worst)):
        digits = len(str(printed).partition(".")[2])
        assert bound == pytest.approx(printed, abs=0.51 * 10**-digits)
    assert found.block_sparse == (tiles == flops)


@settings(max_examples=60)
@given(products(), st.data())
def test_counts_are_those_of_the_tiles(case, data):
    pattern, grid = case
    tiles = [tuple(data.draw(st.integers(1, 5)) for _ in grid) for _ in range(2)]
    found = simulate(pattern, grid, query_tile=tiles[0], key_tile=tiles[1])
    groups = pattern.tiles(grid, query_tile=tiles[0], key_tile=tiles[1]).groups
    states = [group.states() for group in groups]
    assert found.pairs == pattern.pairs(grid)
    assert found.tiles == sum((s > 0).sum() for s in states)
    assert found.partial == sum((s == 1).sum() for s in states)
    assert found.block_sparse == all((s != 1).all() for s in states)
    assert found.computed_pairs == found.tiles * prod(tiles[0]) * prod(tiles[1])
    assert 0 <= found.waste < 1


def test_smallest_stride_of_the_authors():
    for query_tile in (128, 256):
        assert block_sparse_stride(2048, 32768, query_tile, 128, strides=powers_of_two(2048)) == 256
    assert block_sparse_stride(2048, 32768, 128, 128, strides=[128]) is None
    assert block_sparse_stride(7, 16, 4, 4) is None


def official_rule(size: int, window: int, stride: int, query_tile: int, key_tile: int) -> bool:
    """The sufficient rule of the official kernel for one axis that is not causal."""
    left, centre = window // 2, stride // 2
    last = (size - 1) // stride * stride
    start = min(max(min(last + centre, size - 1) - left, 0), size - window)
    groups = -(-size // stride)
    return size == window or (
        stride % query_tile == 0
        and window % key_tile == 0
        and (size % stride == 0 or start % key_tile == 0)
        and (
            (left - centre) % key_tile == 0
            or (size % key_tile == 0 and groups == 2 and stride + centre >= size - window)
        )
    )


def test_official_rule_is_sufficient():
    """Where the rule holds and the query tile is a multiple of the key tile, no visited tile needs a mask; padding of
    the last key tile apart."""
    draw, held = random.Random(0), 0
    for _ in range(4000):
        query_tile, key_tile = draw.choice((1, 2, 4, 8)), draw.choice((1, 2, 4, 8))
        size = draw.randint(2, 64)
        window = draw.randint(2, size)
        stride = draw.randint(1, window)
        if query_tile % key_tile or not official_rule(size, window, stride, query_tile, key_tile):
            continue
        held += 1
        axis = Neighborhood(window, stride).tiles(size, query_tile=query_tile, key_tile=key_tile).axis_classes[0][0][2]
        ends_in_padding = size % key_tile and (axis.last == axis.key_tiles).any()
        found = simulate(Neighborhood(window, stride), size, query_tile=query_tile, key_tile=key_tile)
        assert found.block_sparse or ends_in_padding, (size, window, stride, query_tile, key_tile)
    assert held > 100


def test_official_rule_needs_query_tiles_that_are_multiples():
    """Its counterexample otherwise: every second window starts inside a key tile."""
    assert official_rule(54, 18, 7, 1, 2)
    assert not simulate(Neighborhood(18, 7), 54, query_tile=1, key_tile=2).block_sparse


def test_search_finds_the_settings_in_use():
    found = search(Neighborhood((18, 24, 24)), HUNYUAN, [((4, 8, 8), (2, 8, 8)), ((4, 4, 8), (4, 4, 8))])
    best = found[0]
    assert best.pattern == Neighborhood((18, 24, 24), (16, 8, 8))
    assert best.simulation.block_sparse
    assert best.simulation.query_tile == (4, 8, 8)
    predicted = [candidate.simulation.predicted_speedup() for candidate in found]
    assert predicted == sorted(predicted, reverse=True)
    flux = search(Neighborhood((80, 80)), FLUX, [((16, 16), (16, 8))])
    assert flux[0].pattern.stride == (16, 16)


def test_search_keeps_dilation_and_causal_axes():
    (best, *_) = search(
        Neighborhood((4, 4), dilation=(2, 1), causal=(True, False)), (16, 16), [((4, 4), (4, 4))], strides=[[1, 2], [1]]
    )
    assert best.pattern.dilation == (2, 1)
    assert best.pattern.causal == (True, False)
    again = simulate(best.pattern, (16, 16), query_tile=(4, 4), key_tile=(4, 4))
    assert again == best.simulation


def test_permutation_traffic():
    flux = simulate(Neighborhood((80, 80)), FLUX, query_tile=(16, 16), key_tile=(16, 8))
    tensor = 65536 * 24 * 128 * 2
    assert flux.permutation_bytes(24, 128) == 4 * 2 * tensor
    line = simulate(Neighborhood(2048), 32768, query_tile=128, key_tile=128)
    assert line.permutation_bytes(24, 128) == 0
    padded = simulate(Neighborhood((3, 3)), (5, 5), query_tile=(4, 4), key_tile=(4, 2))
    assert padded.permuted_tokens == (25 + 64, 25 + 48)


def test_explain_says_the_numbers():
    text = simulate(Neighborhood((80, 80)), FLUX, query_tile=(16, 16), key_tile=(16, 8)).explain()
    for part in ("16x16 / 16x8", "90.2%", "10.24x", "7.06x", "6.10x", "need a mask"):
        assert part in text


def test_zero_borders_count_as_keys():
    found = simulate(Halo(4, 2, "zero"), 8, query_tile=4, key_tile=4)
    assert (found.pairs, found.dense_pairs, found.tiles) == (64, 96, 4)
