from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given

from fovea.patterns import (
    Blocks,
    Causal,
    Full,
    GridPattern,
    Halo,
    Neighborhood,
    PerHead,
    SlidingWindow,
    Spans,
    Union,
)
from fovea.patterns.cost import cost, count_pairs
from patterns.strategies import cross_grids, patterns


@given(patterns())
def test_pairs_are_those_of_the_mask(case):
    pattern, grid = case
    assert count_pairs(pattern, grid) == pattern.pairs(grid) == pattern.mask(grid).sum()


@given(cross_grids())
def test_pairs_between_two_grids(case):
    pattern, queries, keys = case
    assert count_pairs(pattern, queries, keys) == pattern.mask(queries, keys).sum()
    if pattern.padding(queries, keys) == ((0, 0),) * len(keys):
        union = Union((pattern, Full()))
        assert count_pairs(union, queries, keys) == prod(queries) * prod(keys)


def test_unions_of_dilations_share_common_multiples():
    for grid in ((60,), (30, 32)):
        pattern = Union(tuple(Neighborhood(4, dilation=d) for d in (2, 3, 5)))
        assert pattern.pairs(grid) == pattern.mask(grid).sum()


@dataclass(frozen=True)
class OneBeside(GridPattern):
    """Every second key, beginning beside the query: its residue class is not that of a dilated neighborhood."""

    name: ClassVar[str] = "one_beside"

    def axis_spans(self, axis: int, queries: int, keys: int) -> Spans:
        position = np.arange(queries) + 1
        return Spans(position % 2, np.full(queries, keys), 2, keys, position)

    def offsets(self, axis: int, queries: int, keys: int) -> tuple[int, int]:
        return -queries, keys


def test_progressions_that_never_meet():
    parts = OneBeside(), Neighborhood(3, dilation=4)
    assert Union(parts).pairs(30) == Union(parts).mask(30).sum() == sum(part.pairs(30) for part in parts)


def test_long_sequences_are_counted_without_a_mask():
    tokens = 1 << 17
    both = Union((SlidingWindow(1023), Blocks.sliding(256, window=1, sink=1)))
    window = SlidingWindow(1023).pairs(tokens)
    sink = 256 * (tokens - 1024) - sum(range(256))
    assert both.pairs(tokens) == window + sink


def test_operations_and_bytes():
    """Two products of ``pairs`` by the head's width; a backward pass is five such products."""
    found = cost(Full(), (4, 8), batch=2, heads=6, kv_heads=2, head_dim=16, value_dim=32, itemsize=4)
    assert found.pairs == found.dense_pairs == 6 * 32 * 32
    assert found.forward == 2 * 2 * found.pairs * (16 + 32)
    assert found.backward == 2.5 * found.forward
    assert found.bytes == 2 * (4 * (6 * 32 * 48 + 2 * 32 * 48) + 4 * 6 * 32)
    assert found.intensity == found.forward / found.bytes
    assert Causal().flops(100, head_dim=64, backward=True) == 2.5 * Causal().flops(100, head_dim=64)


def test_published_operation_counts():
    """HunyuanVideo's window at 24 heads of 128: the useful operations behind the published 628 TFLOP/s."""
    pattern = Neighborhood((18, 24, 24), stride=(16, 8, 8))
    assert pattern.flops((30, 48, 80), heads=24, head_dim=128) == 4 * 24 * 115200 * 10368 * 128


def test_density():
    assert Neighborhood((4, 4)).density((8, 8)) == 0.25
    assert PerHead((Full(), Neighborhood(4))).density(8) == 0.75
    assert Halo(4, 4, "zero").density(8) == 1.5
    assert Full().density(0) == 0


def test_heads_must_agree():
    pattern = PerHead((Full(), Causal()))
    assert cost(pattern, 4).pairs == cost(pattern, 4, heads=2).pairs == 26
    with pytest.raises(ValueError, match="heads=3"):
        cost(pattern, 4, heads=3)
