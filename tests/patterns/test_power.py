"""Offsets that differ by layer, or were searched: what they reach, against the receptive field of the patterns."""

from __future__ import annotations

import numpy as np
import pytest

from fovea.patterns import Blocks, Local, Offsets, Sink
from fovea.patterns.power import one_power_each, reached, search_offsets, searched
from fovea.patterns.reach import receptive_field

PAPER = {
    "sliding": (Blocks.sliding(1, 9), [10, 18, 26, 34, 42, 50, 58, 66]),
    "stride slash": (Blocks.strided(1, 6, 32), [10, 30, 50, 70, 90, 110, 126, 128]),
    "dilated": (Blocks.dilated(1, 20), [10, 19, 28, 37, 46, 55, 64, 64]),
    "longnet": (
        Blocks.longnet(1, ((8, 1), (16, 2), (32, 4), (64, 8), (128, 16))),
        [8, 20, 41, 58, 75, 80, 80, 80],
    ),
    "power": (Blocks.power(1, 5), [10, 35, 75, 110, 126, 128, 128, 128]),
}


@pytest.mark.parametrize(("pattern", "counts"), PAPER.values(), ids=PAPER.keys())
def test_reach_of_the_paper_and_its_baselines(pattern: Blocks, counts: list[int]) -> None:
    assert receptive_field(pattern, 128, depth=8).counts.tolist() == counts


def test_one_power_a_layer_reaches_as_far_for_fewer_blocks() -> None:
    layers = one_power_each(1, 8, blocks=128)
    assert [layer.terms[-1] for layer in layers[:4]] == [Offsets((8,)), Offsets((16,)), Offsets((32,)), Offsets((64,))]
    assert receptive_field(layers, 128).counts.tolist() == [7, 21, 57, 110, 126, 128, 128, 128]
    assert all(len(layer.row(127)) == 7 for layer in layers)
    assert [layer.memory for layer in layers[:4]] == [9, 17, 33, 65]
    assert Blocks.power(1).memory is None
    assert [layer.terms[-1] for layer in one_power_each(1, 2, blocks=16, window=2)] == [Offsets((4,)), Offsets((8,))]


@pytest.mark.parametrize(("window", "count"), [(5, 4), (3, 6)])
def test_searched_offsets_reach_everything_in_four_layers(window: int, count: int) -> None:
    pattern = searched(1, blocks=128, window=window, count=count)
    assert len(pattern.row(127)) == 10
    found = receptive_field(pattern, 128, depth=8)
    assert found.complete_after == 4
    assert receptive_field(Blocks.power(1), 128, depth=8).complete_after == 6
    given = {5: (12, 29, 47, 61), 3: (5, 16, 23, 36, 53, 63)}[window]
    other = receptive_field(Blocks(1, (Local(window), Sink(1), Offsets(given))), 128, depth=8).counts
    assert found.counts[2] >= other[2]


def test_counts_are_those_of_the_receptive_field() -> None:
    source = np.random.default_rng(0)
    for _ in range(20):
        blocks, sink = int(source.integers(2, 40)), int(source.integers(0, 3))
        layers = [sorted({0, *source.integers(1, 12, 3).tolist()}) for _ in range(int(source.integers(1, 5)))]
        patterns = [Blocks(1, (Offsets(tuple(o)), *([Sink(sink)] if sink else []))) for o in layers]
        assert reached(blocks, layers, sink) == receptive_field(patterns, blocks).counts.tolist()


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 64, 1000, 4096])
def test_powers_reach_every_block_in_as_many_layers_as_its_distance_has_ones(blocks: int) -> None:
    """The paper's proof, with neither window nor sink: depth <= popcount(distance) <= log2."""
    depths = receptive_field(Blocks.power(1, 1, sink=0), blocks, depth=12).depths
    ones = np.array([int(distance).bit_count() for distance in range(blocks)])[::-1]
    assert ((depths >= 0) & (depths <= ones)).all()


@pytest.mark.parametrize(("window", "sink"), [(5, 1), (2, 1), (3, 0), (4, 2)])
def test_key_blocks_are_as_many_as_the_formula_says(window: int, sink: int) -> None:
    pattern, size, blocks = Blocks.power(4, window, sink), 4, 200
    table = pattern.table(size * blocks)
    counts = np.diff(table.indptr)
    for row in range(blocks):
        beyond = {row - (1 << k) for k in range(10) if window <= 1 << k <= row} - set(range(sink))
        first = set(range(min(sink, row + 1))) - set(range(row - window + 1, row + 1))
        assert counts[row] == min(window, row + 1) + len(first) + len(beyond)
    whole, own = (counts - 1).sum() * size * size, blocks * size * (size + 1) // 2
    assert pattern.pairs(size * blocks) == whole + own


def test_baselines_have_the_holes_that_the_paper_tells() -> None:
    assert receptive_field(Blocks.sliding(1, 9, sink=0), 4096, depth=12).counts[-1] == 12 * 8 + 1
    dilated = receptive_field(Blocks.dilated(1, 20), 512, depth=512)
    assert (dilated.depths[::-1][1::2] == -1).all()
    segments = ((8, 1), (16, 2), (32, 4), (64, 8), (128, 16))
    assert receptive_field(Blocks.longnet(1, segments), 128, depth=64).complete_after is None


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no power of two"):
        one_power_each(4, 2, blocks=5, window=5)
    with pytest.raises(ValueError, match="count=4; there are 3 offsets"):
        search_offsets(8, 5, 4, 2)
