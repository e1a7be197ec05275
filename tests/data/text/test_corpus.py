"""Token files: what was written is read, across the borders of files; what is damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.data.text.corpus import Corpus, write
from fovea.data.text.tokenizer import Bytes
from fovea.errors import UserError


def expected(texts: list[str]) -> tuple[list[int], list[int]]:
    tokens: list[int] = []
    documents: list[int] = []
    for number, text in enumerate(filter(None, texts)):
        part = [*text.encode(), 256]
        tokens += part
        documents += [number] * len(part)
    return tokens, documents


@settings(max_examples=25)
@given(
    texts=st.lists(st.text(max_size=30), min_size=1, max_size=6).filter(any),
    shard=st.integers(1, 40),
    begin=st.integers(0, 60),
    count=st.integers(0, 60),
)
def test_any_piece_across_files(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], shard: int, begin: int, count: int
) -> None:
    corpus = write(tmp_path_factory.mktemp("corpus") / "it", texts, Bytes(), shard=shard)
    tokens, documents = expected(texts)
    begin = min(begin, len(tokens))
    assert len(corpus) == corpus.facts.tokens == len(tokens)
    assert corpus.tokens(begin, count).tolist() == tokens[begin : begin + count]
    assert corpus.documents(begin, count).tolist() == documents[begin : begin + count]
    assert corpus.facts.bytes == len(tokens) - corpus.facts.documents
    assert corpus.facts.characters == sum(map(len, texts))


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    class Large(Bytes):
        name, vocabulary, end = "large", 70_000, 69_999

        def encode(self, text: str) -> np.ndarray:
            return super().encode(text) + 65_000

    corpus = write(tmp_path / "it", ["ab"], Large())
    assert corpus.facts.width == 4
    assert corpus.tokens(0, 9).tolist() == [65_097, 65_098, 69_999]


def test_nothing_is_left_of_an_interrupted_writing(tmp_path: Path) -> None:
    def texts():
        yield "first"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "it", texts(), Bytes())
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="every document is empty"):
        write(tmp_path / "it", ["", ""], Bytes())
    write(tmp_path / "it", ["text"], Bytes())
    with pytest.raises(UserError, match="exists already"):
        write(tmp_path / "it", ["text"], Bytes())
    with pytest.raises(UserError, match="is no corpus"):
        Corpus(tmp_path)


def test_damaged_files(tmp_path: Path) -> None:
    write(tmp_path / "it", ["text"], Bytes())
    facts = tmp_path / "it" / "corpus.json"
    whole = json.loads(facts.read_text())
    facts.write_text(json.dumps(whole | {"version": 99}))
    with pytest.raises(UserError, match="version 99"):
        Corpus(tmp_path / "it")
    facts.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Corpus(tmp_path / "it")
    facts.write_text(json.dumps(whole))
    (tmp_path / "it" / "tokens-00000.bin").write_bytes(b"abc")
    with pytest.raises(UserError, match=r"is 3 bytes; by corpus\.json it must have 10"):
        Corpus(tmp_path / "it")
    (tmp_path / "it" / "documents.bin").unlink()
    (tmp_path / "it" / "tokens-00000.bin").write_bytes(b"abcdeabcde")
    with pytest.raises(UserError, match=r"documents\.bin is missing"):
        Corpus(tmp_path / "it")
