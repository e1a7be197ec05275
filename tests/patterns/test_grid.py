from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.patterns import Causal, Full, Halo, Neighborhood, Product, SlidingWindow, Window
from patterns.strategies import cross_grids, product_mask, products


@given(products())
def test_masks_are_the_definitions(case):
    pattern, grid = case
    assert (pattern.mask(grid) == product_mask(pattern, grid, grid)).all()


@given(cross_grids())
def test_masks_between_two_grids(case):
    pattern, queries, keys = case
    assert (pattern.mask(queries, keys) == product_mask(pattern, queries, keys)).all()


@given(products())
def test_offsets_hold_every_key(case):
    pattern, grid = case
    for axis, spans in enumerate(pattern.spans(grid)):
        low, high = pattern.offsets(axis, grid[axis], grid[axis])
        seen = spans.counts > 0
        assert (((spans.start - spans.position) // spans.step)[seen] >= low).all()
        assert (((spans.last - spans.position) // spans.step)[seen] <= high).all()
    assert pattern.bias_shape(grid) == tuple(
        high - low + 1 for low, high in (pattern.offsets(a, n, n) for a, n in enumerate(grid))
    )


def test_parameters_may_be_lists_and_numpy_integers():
    import numpy as np

    assert Neighborhood([3, np.int64(5)]) == Neighborhood((3, 5))
    assert hash(Window(np.int32(4))) == hash(Window(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Neighborhood(0), r"Neighborhood\(window=0.*window must be at least 1"),
        (lambda: Neighborhood((7, 3), stride=4), r"stride=4.*axis 1: stride must be 1 to 3"),
        (lambda: Neighborhood(3, dilation=0), "dilation must be at least 1"),
        (lambda: Neighborhood((3, 3), stride=(1, 1, 1)), "disagree on the number of axes"),
        (lambda: Neighborhood(7.0), "window=7.0 must be a whole number"),
        (lambda: Window("8"), "size='8' must be a whole number"),
        (lambda: Neighborhood((3,) * 4), "1 to 3 axes"),
        (lambda: Window(0), "size must be at least 1"),
        (lambda: Window(4, shift=4), "shift must be 0 to 3"),
        (lambda: Window(4, border="shift"), "border must be 'mask' or 'zero'"),
        (lambda: SlidingWindow(-1), "left and right must be at least 0"),
        (lambda: Halo(0, 1), "block must be at least 1"),
        (lambda: Halo(4, 1, "reflect"), "border must be 'mask', 'zero' or 'shift'"),
        (lambda: Product(()), "1 to 3 parts"),
        (lambda: Product((Neighborhood((3, 3)),)), "axis 0.*must be a grid pattern of one axis"),
        (lambda: Product((Product((Full(),)),)), "must be a grid pattern of one axis"),
    ],
)
def test_impossible_descriptions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("pattern", "queries", "keys", "message"),
    [
        (Neighborhood(4, dilation=3), 11, None, "window \\* dilation is 12; it must fit in the 11 keys"),
        (Neighborhood(3), 8, 9, "must share one grid"),
        (Halo(4, 3, "shift"), 9, None, "block \\+ 2 halo is 10"),
        (Window((4, 4)), 16, None, "made for 2 axes"),
        (Causal(), (4, 4), (4,), "equally many axes"),
        (Full(), (4, 4, 4, 4), None, "1, 2 or 3 axes"),
        (Full(), (4, -1), None, "query_grid"),
    ],
)
def test_grids_without_meaning_are_refused(pattern, queries, keys, message):
    with pytest.raises(ValueError, match=message):
        pattern.spans(queries, keys)


@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 4))
def test_zero_border_pads_what_its_blocks_need(size, block, halo):
    (spans,) = Halo(block, halo, "zero").spans(size)
    reach = (size - 1) // block * block + block + halo
    assert spans.padding == (halo, max(0, reach - size))
    assert (spans.counts == block + 2 * halo).all()
