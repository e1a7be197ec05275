"""Repeats of a text, models of equal parameters, and that what repeats is learned."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fovea.tasks.language.repeats import RepeatTraining, compare, foretold, measure, parameters, repeats, rivals, train

TINY = RepeatTraining(
    dim=16, hidden=16, heads=2, look_back=4, steps=2, batch=2, length=24, measured=3, context=2, warmup=1, held_out=0.3
)


def test_repeats_by_hand() -> None:
    row = torch.tensor([list(b"abc..abc.abc"), list(b"aaaaaaaaaaaa")])
    found = repeats(row, 2, 4)
    # "abc" and "bc." stood 5 before, ".ab" and the third "abc" 4; of one letter alone the last is always 1 back.
    assert found.nonzero().tolist() == [[0, 7], [0, 8]]
    assert repeats(row, 2, 3).nonzero()[:, 1].tolist() == [7, 8, 10, 11]
    assert repeats(row, 1, 0).sum() > repeats(row, 3, 0).sum()


def test_rivals_have_equal_parameters() -> None:
    sizes = {name: parameters(config) for name, config in rivals(RepeatTraining()).items()}
    assert len(sizes) == 3
    assert max(sizes.values()) / min(sizes.values()) < 1.005


def test_bits_are_those_of_the_logits() -> None:
    model = train(rivals(TINY)["based"], replace(TINY, steps=0), torch.zeros(0, dtype=torch.int64))
    rows = torch.randint(256, (3, 10))
    chances = model(rows[:, :-1]).softmax(-1).gather(-1, rows[:, 1:, None])[..., 0]
    torch.testing.assert_close(foretold(model, rows, size=2), -chances.log2())


def test_what_is_measured() -> None:
    text = b"to be or not to be, that is the question: " * 8
    found = compare(TINY, text)
    assert set(found) == {"based", "attention", "convolution and window"}
    assert found["based"]["state_bytes"] == 4 * (4 * 3 * 16 + 2 * (2 * 153 * 9) + 2 * (2 * 16 * 5))
    assert 0 < found["based"]["share"] == found["attention"]["share"]
    json.dumps(found)
    assert measure(rivals(TINY)["based"], TINY, text) == found["based"]
    learned = measure(rivals(TINY)["based"], replace(TINY, steps=30, rate=2e-2), text)
    assert learned["bits_per_byte"]["all"] < found["based"]["bits_per_byte"]["all"] - 2


def test_a_text_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="text has 50 bytes; both sides of the cut need more than 24"):
        measure(rivals(TINY)["based"], TINY, b"x" * 50)
