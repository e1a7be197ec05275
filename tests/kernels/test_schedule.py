"""The schedule of the tiled backend against brute force: every visible pair once, few calls, honest summaries."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fovea.kernels.problem import Problem
from fovea.kernels.schedule import Call, Edges, Schedule, candidates, schedule
from fovea.patterns import (
    Blocks,
    Causal,
    GridPattern,
    Halo,
    Neighborhood,
    Pattern,
    PerHead,
    SlidingWindow,
    Union,
    Window,
)
from fovea.patterns.pattern import Grid
from fovea.patterns.states import padded_key_grid
from kernels.problems import grid_cases, patterns


def problem_of(pattern: Pattern, query_grid: Grid, key_grid: Grid | None = None, *, bias: bool = False) -> Problem:
    return Problem(
        pattern, query_grid, key_grid or query_grid, batch=1, heads=2, kv_heads=2, head_dim=8, value_dim=8, extra=0,
        bias=bias, scale=1.0, dtype=torch.float32, device=torch.device("cpu"),
    )  # fmt: skip


def seen(call: Call) -> NDArray[np.bool_]:
    """``[queries of a tile, keys of a tile]``."""
    shape = (call.query.shape[1], call.key.shape[1])
    return (
        np.tril(np.ones(shape, np.bool_))
        if call.causal
        else np.ones(shape, np.bool_)
        if call.mask is None
        else call.mask
    )


def counts(plan: Schedule, problem: Problem) -> NDArray[np.int64]:
    """``[queries, padded keys]``: how often the calls compute each pair."""
    total = np.zeros((problem.queries, prod(plan.key_grid)), np.int64)
    for call in plan.calls:
        for query, key in zip(call.query, call.key, strict=True):
            np.add.at(total, (query[:, None], key[None]), seen(call))
    return total


def visible(problem: Problem) -> NDArray[np.int64]:
    """``[queries, padded keys]`` by the definition: masks for keys of the grid, spans for zero keys around it."""
    mask = np.asarray(problem.pattern.mask(problem.query_grid, problem.key_grid)).astype(np.int64)
    if not any(map(any, problem.padding)):
        return mask
    assert isinstance(problem.pattern, GridPattern)
    grid = padded_key_grid(problem.pattern, problem.query_grid, problem.key_grid)
    total = np.ones((1, 1), np.int64)
    for spans, (before, _), size in zip(problem.spans, problem.padding, grid, strict=True):
        keys = np.arange(size) - before
        axis = np.stack(
            [
                (keys >= a) & (keys < b) & ((keys - a) % spans.step == 0)
                for a, b in zip(spans.start, spans.stop, strict=True)
            ]
        )
        total = np.kron(total, axis)
    return total


def cuts_of(problem: Problem) -> st.SearchStrategy[tuple[Edges, ...]]:
    ways = st.one_of(st.tuples(st.just("every"), st.integers(1, 40)), st.tuples(st.just("runs"), st.integers(1, 4)))
    return st.tuples(*(ways for _ in problem.query_grid))


@given(data=st.data(), drawn=patterns(2))
@settings(max_examples=250)
def test_calls_cover_each_visible_pair_once(data: st.DataObject, drawn: tuple[Pattern, Grid, Grid]) -> None:
    pattern, query_grid, key_grid = drawn
    for part in dict.fromkeys(pattern.parts) if isinstance(pattern, PerHead) else (pattern,):
        problem = problem_of(part, query_grid, key_grid)
        plan = schedule(problem, data.draw(cuts_of(problem)))
        np.testing.assert_array_equal(counts(plan, problem), visible(problem))


@given(data=st.data(), drawn=patterns(2))
@settings(max_examples=150)
def test_disjoint_schedules_have_each_query_once(data: st.DataObject, drawn: tuple[Pattern, Grid, Grid]) -> None:
    pattern, query_grid, key_grid = drawn
    if isinstance(pattern, PerHead):
        return
    problem = problem_of(pattern, query_grid, key_grid)
    plan = schedule(problem, data.draw(cuts_of(problem)))
    if plan.disjoint:
        queries = np.concatenate([call.query.ravel() for call in plan.calls]) if plan.calls else np.zeros(0)
        assert len(np.unique(queries)) == len(queries)


@given(data=st.data(), drawn=patterns(2))
@settings(max_examples=150)
def test_runs_are_the_keys_of_their_tile(data: st.DataObject, drawn: tuple[Pattern, Grid, Grid]) -> None:
    """Tiles either name their keys as boxes of the grid or share no key; both make adding gradients exact."""
    pattern, query_grid, key_grid = drawn
    if isinstance(pattern, PerHead):
        return
    problem = problem_of(pattern, query_grid, key_grid)
    plan = schedule(problem, data.draw(cuts_of(problem)))
    numbers = np.arange(prod(plan.key_grid)).reshape(plan.key_grid)
    for call in plan.calls:
        if call.runs is None:
            assert len(np.unique(call.key)) == call.key.size
            continue
        for key, runs in zip(call.key, call.runs, strict=True):
            boxes = np.full(len(key), -1)
            for part, box in runs:
                boxes[part] = numbers[box].ravel()
            np.testing.assert_array_equal(boxes, key)


@given(drawn=grid_cases())
@settings(max_examples=150)
def test_summaries_are_those_of_the_schedule(drawn: tuple[GridPattern, Grid]) -> None:
    pattern, grid = drawn
    problem = problem_of(pattern, grid)
    if pattern == Causal():
        return
    for cuts, summary in candidates(problem)[:6]:
        plan = schedule(problem, cuts)
        assert summary.pairs == plan.pairs
        assert summary.gathered == plan.gathered
        assert summary.tiles >= sum(len(call.query) for call in plan.calls)
        assert summary.classes >= 1
    best = min(candidates(problem), key=lambda item: item[1].pairs)[1]
    assert best.pairs >= visible(problem).sum()


GROWING = [
    (Neighborhood(7), (56, 56), (168, 112)),
    (Neighborhood(13, 4), (64, 64), (128, 192)),
    (Neighborhood(5, dilation=2), (128, 96), (192, 160)),
    (Neighborhood((3, 5, 5), causal=(True, False, False)), (24, 24, 24), (32, 48, 48)),
    (Window(8, 4), (64, 64), (128, 192)),
    (Halo(8, 3), (64, 64), (128, 192)),
    (SlidingWindow(63), (1024,), (8192,)),
    (Blocks.sliding(64, 3), (1024,), (8192,)),
]


@pytest.mark.parametrize(("pattern", "small", "large"), GROWING, ids=str)
@pytest.mark.parametrize("side", [4, 8, 16])
def test_number_of_calls_does_not_grow_with_the_grid(pattern: Pattern, small: Grid, large: Grid, side: int) -> None:
    """Both grids hold tiles at both borders and inside them."""
    cuts = (("every", side if len(small) < 3 else side // 2),) * len(small)
    few, many = (schedule(problem_of(pattern, grid), cuts) for grid in (small, large))
    assert len(many.calls) <= len(few.calls)
    assert many.gathered > few.gathered


def test_parts_of_a_union_are_disjoint() -> None:
    """Sink, near and far keys overlap; each pair is computed by the first part that sees it."""
    parts = (SlidingWindow(19), Blocks.power(8, 2), Blocks.strided(8, 1, 3), Union((SlidingWindow(3, 2), Causal())))
    problem = problem_of(Union(parts), (101,))
    plan = schedule(problem, (("every", 16),))
    assert not plan.disjoint
    np.testing.assert_array_equal(counts(plan, problem), visible(problem))
    assert sum(part.mask(101).sum() for part in parts) > counts(plan, problem).sum()


@pytest.mark.parametrize("pattern", [Neighborhood((5, 4), (2, 1)), Window(4, 2), Halo(4, 1, "zero")], ids=str)
@pytest.mark.parametrize("side", [1, 4])
def test_places_in_the_bias_table(pattern: GridPattern, side: int) -> None:
    """A call's place of a visible pair is its offset from the pattern's lowest, axis by axis."""
    grid = (12, 9)
    problem = problem_of(pattern, grid, bias=True)
    plan = schedule(problem, (("every", side), ("every", side + 1)))
    shape = pattern.bias_shape(grid, grid)
    lows = [pattern.offsets(axis, size, size)[0] for axis, size in enumerate(grid)]
    checked = 0
    for call in plan.calls:
        assert call.bias is not None
        for query, key in zip(call.query, call.key, strict=True):
            at, to = np.unravel_index(query, grid), np.unravel_index(key, plan.key_grid)
            places = []
            for spans, low, (before, _), i, j in zip(problem.spans, lows, problem.padding, at, to, strict=True):
                places.append((j[None] - before - spans.position[i][:, None]) // spans.step - low)
            mask = seen(call)
            wanted = places[0] * shape[1] + places[1]
            np.testing.assert_array_equal(call.bias[mask], wanted[mask])
            checked += int(mask.sum())
    assert checked == visible(problem).sum()


def test_every_way_to_cut_is_offered_for_every_axis() -> None:
    found = [cuts for cuts, _ in candidates(problem_of(Window(8), (64, 48)))]
    assert len(set(found)) == len(found)
    assert (("runs", 1), ("runs", 1)) in found
    assert set(product((("every", 8), ("every", 16)), repeat=2)) <= set(found)
