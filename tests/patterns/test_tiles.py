from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.patterns import Full, Neighborhood
from fovea.patterns.tiles import TileLists, Tiling
from patterns.strategies import cross_grids, products


@st.composite
def tilings(draw) -> Tiling:
    if draw(st.booleans()):
        (pattern, queries), keys = draw(products()), None
    else:
        pattern, queries, keys = draw(cross_grids())
    sizes = [tuple(draw(st.integers(1, 5)) for _ in queries) for _ in range(2)]
    return Tiling(pattern, queries, keys, *sizes)


def group_mask(tiling: Tiling, group) -> np.ndarray:
    """``[*query members, *key members]`` of one dilation group, from the dense mask."""
    mask = tiling.pattern.mask(tiling.query_grid, tiling.key_grid)
    padded = tuple(spans.keys for spans in tiling.spans)
    mask = mask.reshape(*tiling.query_grid, *padded)
    rows = tuple(slice(first, None, step) for first, step in zip(group.first_query, tiling.step, strict=True))
    columns = tuple(slice(residue, None, step) for residue, step in zip(group.residues, tiling.step, strict=True))
    return mask[rows + columns]


def cut(mask: np.ndarray, query, key) -> np.ndarray:
    """The part of a group's mask with these query ranges and key ranges."""
    part = mask[tuple(slice(*r) for r in (*query, *key))]
    return part.reshape(prod(part.shape[: len(query)]), -1)


@settings(max_examples=500)
@given(tilings())
def test_tiles_against_every_pair(tiling):
    """Full tiles hold no masked pair, tiles that are not visited hold no pair, boxes hold all pairs and little else."""
    seen = 0
    for group in tiling.groups:
        mask, states = group_mask(tiling, group), group.states()
        axes = len(group.axes)
        low, high = group.boxes
        first, last = group.visits
        classes: dict[int, np.ndarray] = {}
        for tile, at in enumerate(np.ndindex(*group.query_tiles)):
            query = [(i * t, (i + 1) * t) for i, t in zip(at, tiling.query_tile, strict=True)]
            rows = cut(mask, query, [(0, None)] * axes)
            seen += rows.sum()
            box = cut(mask, query, list(zip(low[tile], high[tile], strict=True)))
            assert box.sum() == rows.sum()
            assert (group.mask(tile) == box).all()
            assert group.needs_mask[tile] == (not box.all()) or not rows.any()
            number = int(group.mask_class[tile])
            known = classes.setdefault(number, box)
            assert known.shape == box.shape
            assert (known == box).all()
            for column, to in enumerate(np.ndindex(*group.key_tiles)):
                key = [(j * t, (j + 1) * t) for j, t in zip(to, tiling.key_tile, strict=True)]
                part = cut(mask, query, key)
                whole = part.shape[1] == prod(tiling.key_tile)
                visited = all(f <= j < s for f, j, s in zip(first[tile], to, last[tile], strict=True))
                assert (states[tile, column] > 0) == visited
                assert visited or not part.any()
                assert (states[tile, column] == 2) == (whole and bool(part.all()))
        assert group.visited == (states > 0).sum()
        assert group.full == (states == 2).sum()
        lists, table = group.lists(), TileLists.of(states)
        for name in ("partial_start", "partial", "full_start", "full"):
            assert (getattr(lists, name) == getattr(table, name)).all()
    assert seen == tiling.pattern.pairs(tiling.query_grid, tiling.key_grid)


def test_groups_of_a_dilated_grid_differ():
    tiling = Tiling(Neighborhood((3, 2), dilation=(3, 2)), (10, 5), None, (2, 2), (2, 1))
    assert [group.residues for group in tiling.groups] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [group.query_tiles for group in tiling.groups] == [(2, 2), (2, 1), (2, 2), (2, 1), (2, 2), (2, 1)]
    assert [group.key_tiles for group in tiling.groups] == [(2, 3), (2, 2), (2, 3), (2, 2), (2, 3), (2, 2)]


def test_few_masks_serve_many_tiles():
    (group,) = Tiling(Neighborhood((7, 7)), (56, 56), None, (8, 8), (8, 8)).groups
    assert prod(group.query_tiles) == 49
    assert group.mask_class.max() + 1 == 9
    (group,) = Tiling(Neighborhood((24, 24), stride=8), (64, 64), None, (8, 8), (8, 8)).groups
    assert not group.needs_mask.any()


def test_impossible_tiles_are_refused():
    with pytest.raises(ValueError, match="query_tile=\\(4,\\)"):
        Tiling(Full(), (8, 8), None, 4, (4, 4))
    with pytest.raises(ValueError, match="key_tile=\\(4, 0\\)"):
        Full().tiles((8, 8), query_tile=(4, 4), key_tile=(4, 0))
