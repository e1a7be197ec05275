"""What a language model learns from and is measured on: text of the user's, tokenised once, or a corpus that was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fovea.data.text import corpus as corpora
from fovea.data.text import tokenizer as tokenizers
from fovea.data.text.corpus import Corpus
from fovea.data.text.documents import read, text_files
from fovea.data.text.packing import Packed
from fovea.data.text.tokenizer import Tokenizer
from fovea.errors import UserError
from fovea.tasks.language.config import TextData

TOKENIZER = "tokenizer.json"
CORPUS = "corpus"


@dataclass(frozen=True)
class Source:
    """Text as tokens.

    Attributes:
        tokenizer: which made them.
        training, held_out: sequences to learn from and to measure on.
        name: of the file or folder, for people.
    """

    tokenizer: Tokenizer
    training: Packed
    held_out: Packed
    name: str


def look(data: Path) -> None:
    """Raise ``UserError`` where there is no text at all, before anything is written."""
    if (data / "corpus.json").is_file():
        Corpus(data)
    else:
        text_files(data)


def open_text(data: Path, settings: TextData, folder: Path, tokenizer: Tokenizer | None = None) -> Source:
    """The text of ``data``: a file, a folder of files, or a corpus made before, as sequences to learn from and others.

    Text is tokenised into ``folder / "corpus"`` once; a tokenizer that is trained on it is written beside.

    Args:
        tokenizer: the one to use; that of the settings unless given.
    """
    tokenizer = _tokenizer(data, settings, folder) if tokenizer is None else tokenizer
    corpus = _corpus(data, settings, folder, tokenizer)
    cut = round(len(corpus) * (1 - settings.held_out))
    training = Packed(corpus, settings.length, 0, cut)
    return Source(tokenizer, training, Packed(corpus, settings.length, cut), data.name)


def all_text(data: Path, settings: TextData, folder: Path, tokenizer: Tokenizer) -> Packed:
    """All the text of ``data``, in sequences to measure on."""
    corpus = _corpus(data, settings, folder, tokenizer)
    return Packed(corpus, min(settings.length, len(corpus) - 1))


def _corpus(data: Path, settings: TextData, folder: Path, tokenizer: Tokenizer) -> Corpus:
    if (data / "corpus.json").is_file():
        corpus = Corpus(data)
    elif (folder / CORPUS).exists():
        corpus = Corpus(folder / CORPUS)
    else:
        corpus = corpora.write(folder / CORPUS, documents(data, settings.field), tokenizer)
    if corpus.facts.tokenizer != tokenizer.name:
        raise UserError(f"{corpus.folder} was made by the tokenizer {corpus.facts.tokenizer}, not by {tokenizer.name}")
    return corpus


def documents(data: Path, field: str) -> Iterator[str]:
    """The documents of a file or of all files of a folder."""
    for file in text_files(data):
        yield from read(file, field)


def _tokenizer(data: Path, settings: TextData, folder: Path) -> Tokenizer:
    if not settings.vocabulary:
        return tokenizers.load(settings.tokenizer)
    trained = folder / TOKENIZER
    if trained.exists():
        return tokenizers.load(trained)
    return tokenizers.train(documents(data, settings.field), settings.vocabulary, trained)
