from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.patterns.order import Permutation, RowMajor
from patterns.strategies import grids


@st.composite
def permutations(draw) -> Permutation:
    grid = draw(grids())
    tile = tuple(draw(st.integers(1, 5)) for _ in grid)
    return Permutation(grid, tile, tuple(draw(st.integers(1, 3)) for _ in grid))


@given(permutations())
def test_permutation_is_pad_view_and_transpose(order):
    """The definition, on an array: pad, split each axis in (rest, tile, dilation), bring the parts in order."""
    axes = len(order.grid)
    tokens = np.arange(prod(order.grid)).reshape(order.grid)
    sizes = [t * d for t, d in zip(order.tile, order.dilation, strict=True)]
    tokens = np.pad(tokens, [(0, -n % size) for n, size in zip(order.grid, sizes, strict=True)], constant_values=-1)
    split = [
        part for n, t, d in zip(tokens.shape, order.tile, order.dilation, strict=True) for part in (n // (t * d), t, d)
    ]
    rest, inside, group = (list(range(k, 3 * axes, 3)) for k in range(3))
    expected = tokens.reshape(split).transpose(group + rest + inside).reshape(order.groups, -1)
    assert (order.index == expected).all()
    assert order.length == expected.size


@given(permutations())
def test_inverse_finds_every_token(order):
    assert (order.index.ravel()[order.inverse] == np.arange(prod(order.grid))).all()


@given(permutations())
def test_coordinates_are_those_of_the_index(order):
    coordinates = order.coordinates(np.arange(order.length))
    real = np.all([c < n for c, n in zip(coordinates, order.grid, strict=True)], axis=0)
    assert (real == (order.index.ravel() >= 0)).all()
    token = np.ravel_multi_index([c[real] for c in coordinates], order.grid)
    assert (token == order.index.ravel()[real]).all()


def tokens_of(pieces, grid, block) -> list[int]:
    """The tokens of one block, which its disjoint pieces hold."""
    found: list[int] = []
    for low, high in zip(pieces.low[block], pieces.high[block], strict=True):
        ranges = [range(a, b + 1, step) for a, b, step in zip(low, high, pieces.step, strict=True)]
        found += [int(np.ravel_multi_index(t, grid)) for t in np.stack(np.meshgrid(*ranges), -1).reshape(-1, len(grid))]
    assert len(set(found)) == len(found)
    return sorted(found)


@given(grids(), st.integers(1, 30))
def test_row_major_blocks_are_their_pieces(grid, block):
    order = RowMajor(grid)
    pieces = order.pieces(block)
    assert pieces.low.shape[1] <= 2 * len(grid) - 1
    for number in range(len(pieces.low)):
        places = list(range(number * block, min((number + 1) * block, order.length)))
        assert tokens_of(pieces, grid, number) == places
        assert pieces.whole[number] == (len(places) == block)


@given(permutations())
def test_tiles_are_one_piece_each(order):
    pieces, tokens = order.pieces(), order.index.reshape(-1, prod(order.tile))
    for number, places in enumerate(tokens):
        assert tokens_of(pieces, order.grid, number) == sorted(places[places >= 0])
        assert pieces.whole[number] == (places >= 0).all()


def test_impossible_orders_are_refused():
    with pytest.raises(ValueError, match="tile=\\(2,\\)"):
        Permutation((4, 4), (2,), (1, 1))
    with pytest.raises(ValueError, match="at least 1"):
        Permutation((4, 4), (2, 0), (1, 1))
    with pytest.raises(ValueError, match="a block is 4 tokens"):
        Permutation((4, 4), (2, 2), (1, 1)).pieces(8)
