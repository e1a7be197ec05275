from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from fovea.patterns import Blocks, Causal, Full, Halo, Neighborhood, PerHead, Sink, SlidingWindow, Union, Window
from patterns.strategies import patterns


@given(patterns())
def test_union_changes_nothing_twice(case):
    pattern, grid = case
    if not isinstance(pattern, PerHead):
        assert (Union((pattern, pattern)).mask(grid) == pattern.mask(grid)).all()


def test_union_does_not_care_about_order():
    a, b = SlidingWindow(1), Blocks(4, Sink(1))
    assert (Union((a, b)).mask(20) == Union((b, a)).mask(20)).all()
    assert (Union((a, b)).mask(20) == (a.mask(20) | b.mask(20))).all()


def test_heads_follow_their_own_patterns():
    pattern = PerHead((Causal(), Full(), Causal()))
    assert pattern.heads == 3
    assert (pattern.mask(5) == np.stack([part.mask(5) for part in pattern.parts])).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Union(()), "one or more patterns"),
        (lambda: Union(("causal",)), "one or more patterns; got"),
        (lambda: Union((PerHead((Full(),)),)), "cannot hold perhead"),
        (lambda: PerHead((PerHead((Full(),)),)), "cannot hold perhead"),
        (lambda: Union((Window((4, 4)), Blocks.power(4))), "different numbers of axes"),
        (lambda: Union((Full(), Neighborhood(9))).mask(8), "window \\* dilation is 9"),
        (lambda: Union((Full(), Halo(4, 1, "zero"))).mask(8), "equally many zeros"),
        (lambda: PerHead((Halo(4, 2, "zero"), Halo(4, 1, "zero"))).mask(8), "equally many zeros"),
    ],
)
def test_impossible_descriptions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parts_with_the_same_zeros_can_be_joined():
    parts = Halo(4, 1, "zero"), Halo(2, 1, "zero")
    assert Union(parts).padding((8,), (8,)) == ((1, 1),)
    assert (Union(parts).mask(8) == (parts[0].mask(8) | parts[1].mask(8))).all()


def test_different_zeros_of_one_total_are_refused():
    parts = Halo(2, 1, "zero"), Halo(3, 0, "zero")
    assert [part.padding((7,), (7,)) for part in parts] == [((1, 2),), ((0, 2),)]
    with pytest.raises(ValueError, match="equally many zeros"):
        Union(parts).mask(7)
