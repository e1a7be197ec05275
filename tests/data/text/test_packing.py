"""Sequences to learn from: their targets, their documents, and an order that can be taken up anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fovea.data.text.corpus import Corpus, write
from fovea.data.text.packing import IGNORED, Packed
from fovea.data.text.tokenizer import Bytes
from fovea.errors import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    texts = ["abc", "de", "fghijklm", "n", "opqrstuvwxyz" * 4]
    return write(tmp_path_factory.mktemp("packed") / "it", texts, Bytes(), shard=17)


def test_targets_never_cross_a_border(corpus: Corpus) -> None:
    first = Packed(corpus, 8).sequence(0)
    assert first["tokens"].tolist() == [97, 98, 99, 256, 100, 101, 256, 102]
    assert first["targets"].tolist() == [98, 99, 256, IGNORED, 101, 256, IGNORED, 103]
    assert first["documents"].tolist() == [0, 0, 0, 0, 1, 1, 1, 2]


def test_sequences_cover_the_corpus(corpus: Corpus) -> None:
    packed = Packed(corpus, 7)
    tokens = torch.cat([packed.sequence(number)["tokens"] for number in range(len(packed))])
    assert tokens.tolist() == corpus.tokens(0, len(packed) * 7).tolist()
    assert 0 < len(packed.sequence(len(packed))["tokens"]) < 7


def test_an_epoch_draws_each_place_once(tmp_path: Path) -> None:
    packed = Packed(write(tmp_path / "it", ["".join(map(chr, range(128)))], Bytes()), 5)
    count = len(packed) - 1
    orders = []
    for epoch in range(3):
        drawn = [packed.drawn(epoch * count + number, seed=3)["tokens"].tolist() for number in range(count)]
        first = min(sequence[0] for sequence in drawn)
        assert first < 5
        assert sorted(drawn) == [list(range(at, at + 5)) for at in range(first, first + 5 * count, 5)]
        orders.append([(sequence[0] - first) // 5 for sequence in drawn])
    assert orders[0] != orders[1] != orders[2]


def test_the_order_is_that_of_the_seed_alone(corpus: Corpus) -> None:
    def all_of(packed: Packed, seed: int) -> list[list[int]]:
        return [packed.drawn(n, seed)["tokens"].tolist() for n in range(30)]

    assert all_of(Packed(corpus, 6), 1) == all_of(Packed(corpus, 6), 1) != all_of(Packed(corpus, 6), 2)
    late = Packed(Corpus(corpus.folder), 6).drawn(29, 1)["tokens"].tolist()
    assert late == all_of(Packed(corpus, 6), 1)[29]


def test_a_corpus_of_one_sequence(corpus: Corpus) -> None:
    packed = Packed(corpus, len(corpus) - 2)
    assert len(packed) == 1
    assert len(packed.drawn(5, 0)["targets"]) == len(corpus) - 2


@pytest.mark.parametrize("length", [0, 67])
def test_lengths_that_do_not_fit(corpus: Corpus, length: int) -> None:
    with pytest.raises(UserError, match=f"length={length}"):
        Packed(corpus, length)
