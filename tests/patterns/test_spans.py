from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.patterns import Neighborhood, Spans
from patterns.strategies import axes, halos, neighborhood_window, neighborhoods


@st.composite
def spans(draw) -> Spans:
    size = draw(st.integers(1, 30))
    return draw(axes(size)).spans(size)[0]


@given(spans())
def test_inverse_is_the_transposed_mask(spans):
    real = spans.mask()[:, spans.padding[0] : spans.padding[0] + spans.keys]
    assert (spans.inverse().mask() == real.T).all()


@given(spans())
def test_counts_total_and_last_key(spans):
    mask, before = spans.mask(), spans.padding[0]
    assert (spans.counts == mask.sum(1)).all()
    assert spans.total == mask.sum()
    for row, last in zip(mask, spans.last, strict=True):
        assert not row.any() or np.flatnonzero(row)[-1] == last + before


@given(spans())
def test_padded_keeps_the_mask(spans):
    assert spans.padded().padding == (0, 0)
    assert (spans.padded().mask() == spans.mask()).all()


@given(spans())
def test_residue_classes_make_up_the_mask(spans):
    spans = spans.padded()
    whole = np.zeros_like(spans.mask())
    for residue in range(spans.step):
        first, group = spans.residue(residue)
        assert group.step == 1
        rows = first + np.arange(group.queries) * spans.step
        columns = residue + np.arange(group.keys) * spans.step
        whole[np.ix_(rows, columns)] |= group.mask()
    assert (whole == spans.mask()).all()


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), neighborhoods(n))))
def test_inverse_formulas_of_the_neighborhood(case):
    """The closed form of who attends to key t (FNA's backward pass) against ``Spans.inverse``."""
    size, pattern = case
    k, s, d = pattern.window, pattern.stride, pattern.dilation
    inverse = pattern.spans(size)[0].inverse()
    left, right = k // 2, k - 1 - k // 2
    for key in range(size):
        group, t = key % d, key // d
        members = -(-(size - group) // d)
        if pattern.causal:
            low = t
            high = members - 1 if t + k >= members else ((t + k) // s) * s - 1
        else:
            low = 0 if t < k else max(0, -(-(t - right - s // 2) // s)) * s
            high = members - 1 if t >= members - k else min(((t + left - s // 2) // s + 1) * s, members) - 1
        assert inverse.start[key] == low * d + group
        assert inverse.last[key] == high * d + group
        seen_by = {i for i in range(size) if key in neighborhood_window(i, size, k, s, d, pattern.causal)}
        assert seen_by == set(range(low * d + group, high * d + group + 1, d))


@pytest.mark.parametrize(
    ("start", "stop", "step", "message"),
    [
        ([0, 0], [1], 1, "stop has shape"),
        ([0, 0], [1, 1], 0, "step=0"),
        ([0, 0], [4, 4], 1, "reach from key 0 to 3"),
        ([-1, 0], [1, 1], 1, "reach from key -1"),
        ([1, 0], [2, 2], 1, "must not decrease"),
        ([0, 0], [3, 2], 1, "must not decrease"),
        ([1, 1], [2, 2], 2, "residue class of its query"),
    ],
)
def test_impossible_spans_are_refused(start, stop, step, message):
    with pytest.raises(ValueError, match=message):
        Spans(np.array(start), np.array(stop), step, 3, np.arange(len(start)))


def test_tables_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        Neighborhood(3).spans(5)[0].start[0] = 1


@given(halos("zero"), st.integers(1, 20))
def test_residues_of_padded_spans_are_refused(pattern, size):
    (spans,) = pattern.spans(size)
    if spans.padding != (0, 0):
        with pytest.raises(ValueError, match="padding"):
            spans.residue(0)
