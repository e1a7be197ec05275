"""Blocks chosen at run time: what their tables mean, their text form, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.patterns import Blocks, Chosen, PerHead, parse
from patterns.strategies import chosen


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_mask_is_the_table(queries: int, keys: int, data: st.DataObject) -> None:
    pattern = data.draw(chosen(queries, keys))
    position = keys - queries if pattern.causal else 0
    expected = np.zeros((queries, keys), np.bool_)
    for i in range(queries):
        row = (position + i) // pattern.size - position // pattern.size
        for j in range(keys):
            expected[i, j] = j // pattern.size in pattern.rows[row] and (not pattern.causal or j <= position + i)
    assert np.array_equal(pattern.mask(queries, keys), expected)
    assert pattern.pairs(queries, keys) == expected.sum()
    for i in range(queries):
        assert np.array_equal(pattern.keys(i, queries, keys), expected[i])
    assert parse(str(pattern)) == pattern
    assert hash(parse(str(pattern))) == hash(pattern)


def test_the_rules_of_a_pattern_given_as_a_table() -> None:
    rules = Blocks.power(4, 2)
    table = rules.table(50)
    given_rows = Chosen(4, tuple(tuple(table.row(row).tolist()) for row in range(table.rows)), causal=True)
    assert np.array_equal(given_rows.mask(50), rules.mask(50))


def test_ways_to_say_it() -> None:
    seen = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], np.bool_)
    assert Chosen.where(2, seen) == Chosen(2, ((0,), (0, 1), (1, 2)))
    assert Chosen.spans(2, [0, 0, 1], [1, 2, 3]) == Chosen.where(2, seen)
    assert Chosen.clusters(2, [0, 1, 0]) == Chosen(2, ((0, 2), (1,), (0, 2)))
    assert Chosen.clusters(2, [0, 1, 0], causal=True) == Chosen(2, ((0,), (1,), (0, 2)), causal=True)
    assert Chosen.clusters(2, [1, 0], [0, 1, 1]) == Chosen(2, ((1, 2), (0,)))
    assert Chosen(2, ((2, 0, 2),)) == Chosen(2, ((0, 2),))


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("chosen:size=64,rows=0/0-1/0+2-3", Chosen(64, ((0,), (0, 1), (0, 2, 3)))),
        ("chosen:size=8,rows=0//1,causal=1", Chosen(8, ((0,), (), (1,)), causal=True)),
        ("perhead(chosen:size=8,rows=0; chosen:size=8,rows=1)", PerHead((Chosen(8, ((0,),)), Chosen(8, ((1,),))))),
    ],
)
def test_what_texts_mean(text: str, pattern: Chosen) -> None:
    assert parse(text) == pattern
    assert parse(str(pattern)) == pattern


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 1"):
        Chosen(0, ((0,),))
    with pytest.raises(ValueError, match="list blocks from 0 on"):
        Chosen(4, ((-1,),))
    with pytest.raises(ValueError, match="its table has 1 rows; 9 queries stand in 3 blocks of 4"):
        Chosen(4, ((0,),)).mask(9)
    with pytest.raises(ValueError, match="row 1 lists block 3; it may list 0 to 2"):
        Chosen(4, ((0,), (3,), ())).mask(9)
    with pytest.raises(ValueError, match="row 0 lists block 1; it may list 0 to 0"):
        Chosen(4, ((1,), (), ()), causal=True).mask(9)
    with pytest.raises(ValueError, match="cannot stand at the end"):
        Chosen(4, ((0,), (), ()), causal=True).mask(9, 5)
    with pytest.raises(ValueError, match="it must be .query blocks, key blocks."):
        Chosen.where(4, np.ones(3, np.bool_))
    with pytest.raises(ValueError, match="'b' must be the number of a block"):
        parse("chosen:size=4,rows=0/b")
    with pytest.raises(ValueError, match="chosen needs size, rows"):
        parse("chosen")
