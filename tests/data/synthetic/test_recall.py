"""Recall sequences: what is asked was said, batches do not mix segments."""

from __future__ import annotations

import pytest
import torch

from fovea.data.synthetic.recall import IGNORED, PAPER_TEST, PAPER_TRAIN, Segment, batches, generate, segment_seeds


@pytest.mark.parametrize(("length", "pairs"), [(32, 8), (64, 4), (4, 1)])
def test_every_key_is_asked_once_and_its_value_was_said(length: int, pairs: int) -> None:
    found = generate(Segment(20, length, pairs), 100, 0)
    for tokens, labels in zip(found.inputs.tolist(), found.labels.tolist(), strict=True):
        said = dict(zip(tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2], strict=True))
        asked = {tokens[at]: label for at, label in enumerate(labels) if label != IGNORED}
        assert asked == said
        assert len(set(said.values())) == pairs
        assert all(1 <= key < 50 <= value < 100 for key, value in said.items())
        assert all(labels[at] != IGNORED for at in range(2 * pairs, length) if tokens[at])


def test_fillers_change_only_what_is_unused() -> None:
    plain, filled = (generate(Segment(9, 64, 4), 100, 5, filler_seed=seed) for seed in (None, 1))
    used = plain.inputs != 0
    assert torch.equal(plain.inputs[used], filled.inputs[used])
    assert torch.equal(plain.labels, filled.labels)
    assert filled.inputs.count_nonzero() > plain.inputs.count_nonzero()


def test_small_power_asks_soon() -> None:
    early, even = (generate(Segment(200, 256, 4), 300, 1, power=power).labels for power in (0.01, 1.0))
    where = [(labels != IGNORED).nonzero()[:, 1].float().mean() for labels in (early, even)]
    assert where[0] < where[1] / 2


def test_batches() -> None:
    segments = [generate(Segment(10, 16, 2), 50, 0), generate(Segment(7, 32, 4), 50, 1)]
    in_order = list(batches(segments, 4, shuffle=False))
    assert [tuple(x.shape) for x, _ in in_order] == [(4, 16), (4, 16), (2, 16), (4, 32), (3, 32)]
    assert torch.equal(torch.cat([x for x, _ in in_order[:3]]), segments[0].inputs)
    shuffled = list(batches(segments, 4, seed=3))
    assert sorted(len(x) for x, _ in shuffled) == [2, 3, 4, 4, 4]
    assert not torch.equal(torch.cat([x for x, _ in shuffled if x.shape[1] == 16]), segments[0].inputs)
    for (x, y), (again, _) in zip(shuffled, batches(segments, 4, seed=3), strict=True):
        assert torch.equal(x, again)
        assert ((y == IGNORED) | (y >= 25)).all()


def test_seeds_of_training_and_test_are_apart() -> None:
    train, test = segment_seeds(len(PAPER_TRAIN), len(PAPER_TEST))
    assert len(train) == 5
    assert len(test) == 7
    assert max(train) < 2**31 <= min(test)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((1, 15, 2), "length=15; it must be even and above 0"),
        ((0, 16, 2), "examples=0; it must be at least 1"),
        ((1, 16, 5), "with length=16 it must be 1 to 4"),
        ((1, 16, 0), "pairs=0"),
    ],
)
def test_segments_that_cannot_be(words: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segment(*words)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="vocabulary=16; it must be above length=16"):
        generate(Segment(1, 16, 2), 16, 0)
    with pytest.raises(ValueError, match="size=0; it must be at least 1"):
        next(batches([], 0))
