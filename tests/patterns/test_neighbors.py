from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.patterns import Full, PerHead
from fovea.patterns.neighbors import seen_keys
from patterns.strategies import cross_grids, patterns


@given(patterns(), st.data())
def test_keys_of_a_query_are_its_row_of_the_mask(case, data):
    pattern, grid = case
    query = tuple(data.draw(st.integers(0, n - 1)) for n in grid)
    row = pattern.mask(grid)[..., np.ravel_multi_index(query, grid), :]
    keys = seen_keys(pattern, query, grid)
    assert (keys.reshape(row.shape) == row).all()
    assert keys.ndim == len(grid) + isinstance(pattern, PerHead)


@given(cross_grids(), st.data())
def test_keys_on_another_grid(case, data):
    pattern, queries, keys = case
    query = tuple(data.draw(st.integers(0, n - 1)) for n in queries)
    row = pattern.mask(queries, keys)[np.ravel_multi_index(query, queries)]
    assert (pattern.keys(query, queries, keys).ravel() == row).all()


def test_queries_outside_are_refused():
    with pytest.raises(ValueError, match="query=\\(4, 0\\)"):
        seen_keys(Full(), (4, 0), (4, 4))
