from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.patterns import Blocks, BlockTable, Every, Local, Offsets, Powers, Segment, Sink
from patterns.strategies import blocks, blocks_mask, term_sees, terms


@given(terms(), st.integers(0, 60))
def test_terms_list_what_their_formula_says(term, row):
    listed = {int(block) for block in term.blocks(row) if 0 <= block <= row}
    assert listed == {block for block in range(row + 1) if term_sees(term, row, block)}


@given(terms(), st.integers(1, 60))
def test_closed_form_of_terms(term, rows):
    row, block = np.meshgrid(np.arange(rows), np.arange(rows), indexing="ij")
    before = block <= row
    formula = np.vectorize(lambda r, b: term_sees(term, int(r), int(b)))(row, np.minimum(block, row))
    assert (np.broadcast_to(term.sees(row, block), row.shape)[before] == formula[before]).all()


@given(blocks(), st.integers(1, 60), st.integers(0, 40))
def test_masks_pairs_and_inverse(pattern, queries, before):
    keys = queries + before
    mask = blocks_mask(pattern, queries, keys)
    table = pattern.table(queries, keys)
    assert (pattern.mask(queries, keys) == mask).all()
    assert pattern.pairs(queries, keys) == table.pairs() == mask.sum()
    query, key = before + np.arange(queries), np.arange(keys)
    assert (np.broadcast_to(pattern.sees(query[:, None], key[None]), mask.shape) == mask).all()
    indptr, rows = pattern.inverse(queries, keys)
    seen_by = {(int(b), r) for r in range(table.rows) for b in table.row(r)}
    listed = {(b, int(r)) for b in range(len(indptr) - 1) for r in rows[indptr[b] : indptr[b + 1]]}
    assert listed == seen_by


@given(blocks(), st.integers(1, 60), st.data())
def test_decoding_sees_what_prefill_saw(pattern, keys, data):
    queries = data.draw(st.integers(1, keys))
    assert (pattern.mask(queries, keys) == pattern.mask(keys)[-queries:]).all()


def test_table_rows_are_ascending_and_unique():
    table = Blocks(4, (Local(3), Sink(2), Powers())).table(100)
    for row in range(table.rows):
        assert (np.diff(table.row(row)) > 0).all()


def test_table_without_causal_cut():
    table = BlockTable(2, 4, 4, 0, np.array([0, 2, 3]), np.array([0, 1, 0]), causal=False)
    assert table.mask().astype(int).tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert table.pairs() == 12


def test_named_patterns_of_the_papers():
    assert Blocks.sliding(4, 9) == Blocks(4, (Local(9), Sink(1)))
    assert Blocks.sliding(4, 9, sink=0) == Blocks(4, Local(9))
    assert Blocks.power(4) == Blocks(4, (Local(5), Sink(1), Powers()))
    assert Blocks.strided(4, 6, 32) == Blocks(4, (Local(6), Sink(1), Every(32)))
    assert Blocks.dilated(4, 20) == Blocks(4, (Local(20, 2),))
    assert Blocks.longnet(4, ((8, 1), (16, 2))) == Blocks(4, (Segment(8, 1), Segment(16, 2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blocks(0, (Sink(),)), "size must be at least 1"),
        (lambda: Blocks(4, ()), "terms must be one or more of local, sink"),
        (lambda: Blocks(4, ("sink",)), "terms must be one or more of"),
        (lambda: Local(0), r"Local\(window=0, dilation=1\): window"),
        (lambda: Sink(0), "count must be at least 1"),
        (lambda: Offsets(()), "must list distances"),
        (lambda: Offsets((1, -2)), "at least 0 blocks"),
        (lambda: Every(0), "stride must be at least 1"),
        (lambda: Segment(6, 1), "must be powers of two"),
        (lambda: Blocks.power(4).mask(5, 4), "5 queries cannot stand at the end of 4 keys"),
        (lambda: Blocks.power(4).pairs((4, 4)), "made for 1 axes"),
    ],
)
def test_impossible_descriptions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
