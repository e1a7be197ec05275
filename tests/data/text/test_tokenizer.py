"""Tokenizers give back the text they were given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.data.text import tokenizer
from fovea.data.text.tokenizer import Bytes, Trained, load, train
from fovea.errors import UserError

TEXTS = ["the window of the house looks at the garden, the garden at the house"] * 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train(TEXTS, 300, path)
    return path


@settings(max_examples=40)
@given(st.text())
def test_bytes_give_back_every_text(text: str) -> None:
    encoded = Bytes().encode(text)
    assert encoded.tolist() == list(text.encode())
    assert Bytes().decode(np.append(encoded, Bytes.end)) == text


def test_broken_bytes_become_a_sign() -> None:
    assert Bytes().decode([0xC3, 0x28]) == "\N{REPLACEMENT CHARACTER}("


@settings(max_examples=40)
@given(text=st.text())
def test_trained_tokens_give_back_every_text(trained: Path, text: str) -> None:
    found = load(trained)
    assert found.decode([*found.encode(text).tolist(), found.end]) == text


def test_words_that_were_often_seen_become_short(trained: Path) -> None:
    found = load(trained)
    assert found.vocabulary <= 300
    assert len(found.encode(TEXTS[0])) < len(TEXTS[0]) / 3
    assert found.encode("").tolist() == []


def test_the_name_tells_tokenizers_apart(trained: Path, tmp_path: Path) -> None:
    other = train(TEXTS, 280, tmp_path / "tokenizer.json")
    assert load(trained).name == load(trained.parent).name != other.name


def test_what_is_no_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is no tokenizer"):
        load(tmp_path)
    with pytest.raises(UserError, match="does not exist; a tokenizer is 'bytes'"):
        load(tmp_path / "none.json")
    with pytest.raises(UserError, match="vocabulary=256"):
        train(TEXTS, 256, tmp_path / "small.json")


def test_a_tokenizer_without_an_end(trained: Path, tmp_path: Path) -> None:
    content = json.loads(trained.read_text().replace(tokenizer.END, "<other>"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="names no end of a document"):
        Trained(tmp_path)
