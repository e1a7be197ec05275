"""Descriptions that mean the same: what the papers say of each other's patterns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fovea.patterns import (
    Blocks,
    Causal,
    Every,
    Full,
    Halo,
    Local,
    Neighborhood,
    Powers,
    Product,
    SlidingWindow,
    Window,
)
from patterns.strategies import neighborhoods


def same(a, b, grid) -> bool:
    return bool((a.mask(grid) == b.mask(grid)).all())


@given(st.integers(1, 40), st.data())
def test_window_partition_is_stride_equal_to_window(groups, data):
    window = 2 * data.draw(st.integers(1, 6))
    assert same(Neighborhood(window, stride=window), Window(window), window * groups)


def test_last_window_is_moved_inside_where_the_partition_cuts_it():
    pattern, partition = Neighborhood(4, stride=4), Window(4)
    assert not same(pattern, partition, 10)
    assert pattern.spans(10)[0].start[-1] == 6
    assert partition.spans(10)[0].start[-1] == 8


@given(st.integers(1, 6), st.integers(0, 3), st.integers(1, 8))
def test_sliding_tile_attention(tile, half, tiles):
    """STA: a query tile sees the odd window of tiles around its own, moved inside at the borders."""
    window = 2 * half + 1
    assume(tiles >= window)
    size = tile * tiles
    own = np.arange(size) // tile
    first = np.clip(own - half, 0, tiles - window)
    mask = (own[None] >= first[:, None]) & (own[None] < (first + window)[:, None])
    assert (Neighborhood(window * tile, stride=tile).mask(size) == mask).all()


@given(st.integers(1, 6), st.integers(0, 4), st.integers(1, 8))
def test_halo_inside_the_grid(block, halo, count):
    """HaloNet is the generalized neighborhood of ``block + 2 halo`` and stride ``block`` away from the border."""
    size, width = block * count, block + 2 * halo
    assume(width <= size)
    strided, halonet = Neighborhood(width, stride=block), Halo(block, halo)
    assert same(strided, Halo(block, halo, "shift"), size)
    first = np.arange(size) // block * block - halo
    inside = (first >= 0) & (first + width <= size)
    assert (strided.mask(size)[inside] == halonet.mask(size)[inside]).all()


@given(st.integers(1, 30), st.data())
def test_whole_windows_are_full(size, data):
    stride = data.draw(st.integers(1, size))
    assert same(Neighborhood(size, stride), Full(), size)
    assert same(Window(size), Full(), size)
    assert same(SlidingWindow(size, size), Full(), size)
    assert same(Halo(1, size), Full(), size)


@given(st.integers(1, 30), st.integers(1, 30))
def test_causal_and_sliding(size, window):
    assert same(Causal(), SlidingWindow(size - 1), size)
    assume(window <= size)
    assert same(SlidingWindow(window - 1), Neighborhood(window, causal=True), size)
    assert same(Causal(), Blocks(1, Every(1)), size)
    assert same(SlidingWindow(window - 1), Blocks(1, Local(window)), size)
    assert same(Causal(), Blocks(window, Local(size)), size)


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_products_and_tuples(height, width, data):
    a, b = data.draw(neighborhoods(height)), data.draw(neighborhoods(width))
    both = Neighborhood(
        (a.window, b.window), (a.stride, b.stride), (a.dilation, b.dilation), (bool(a.causal), bool(b.causal))
    )
    assert same(Product((a, b)), both, (height, width))


def test_partition_is_a_halo_of_nothing():
    for size in (7, 12, 13):
        assert same(Window(4), Halo(4, 0), size)
        assert same(Window(4), Halo(4, 0, "mask"), size)
        assert same(Window(4, border="zero"), Halo(4, 0, "zero"), size)


def test_own_and_previous_block_are_powers():
    assert same(Blocks(4, Powers()), Blocks(4, (Powers(), Local(2))), 64)


@pytest.mark.parametrize(
    ("height", "width", "size", "shift"), [(12, 8, 4, 2), (15, 10, 5, 2), (16, 16, 8, 4), (8, 12, 4, 1)]
)
def test_shifted_windows_are_roll_and_mask(height, width, size, shift):
    """Swin's and HAT's shifted window attention: roll by ``-shift``, partition, mask pairs of different regions."""
    regions = np.zeros((height, width), np.int64)
    bands = [(slice(0, -size), slice(-size, -shift), slice(-shift, None))] * 2
    for number, (rows, columns) in enumerate((r, c) for r in bands[0] for c in bands[1]):
        regions[rows, columns] = number
    windows = np.arange(height)[:, None] // size * width + np.arange(width) // size
    regions, windows = (np.roll(table, (shift, shift), (0, 1)).ravel() for table in (regions, windows))
    mask = (regions[:, None] == regions) & (windows[:, None] == windows)
    assert (Window(size, shift).mask((height, width)) == mask).all()


@pytest.mark.parametrize(("size", "shift"), [(7, 3), (4, 2), (3, 1)])
@pytest.mark.parametrize("grid", [(11, 9), (8, 13), (12, 15)])
def test_windows_with_zeros_at_the_end_are_pad_roll_and_mask(grid, size, shift):
    """Swin's and Swin UNETR's order: the padded grid is rolled, cut and masked; rows of padded queries left out."""
    padded = tuple(-(-n // size) * size for n in grid)
    mask = Window(size, shift).mask(padded)
    real = np.zeros(padded, np.bool_)
    real[: grid[0], : grid[1]] = True
    assert (Window(size, shift, "zero").mask(grid) == mask[real.ravel()]).all()
