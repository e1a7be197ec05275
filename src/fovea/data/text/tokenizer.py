"""Tokenizers: bytes, which need no file, and those of Hugging Face's ``tokenizers``, trained here or given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.errors import MissingExtra, UserError

END = "<|end|>"
"""What a tokenizer that is trained here calls the end of a document."""
ENDS = (END, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>")
"""What published tokenizers call it, in the order in which they are looked for."""


class Tokenizer(ABC):
    """Text to numbers of tokens and back.

    Attributes:
        name: ``"bytes"``, or the name and the fingerprint of the file; equal names mean equal numbers.
        vocabulary: tokens are numbered 0 to ``vocabulary - 1``.
        end: the token that closes a document.
    """

    name: str
    vocabulary: int
    end: int

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.uint32]:
        """The tokens of a text, without the end of a document."""

    @abstractmethod
    def decode(self, tokens: Sequence[int] | NDArray[Any]) -> str:
        """The text of tokens; ends of documents are left out, and bytes that are no UTF-8 become U+FFFD."""

    def size(self, tokens: Sequence[int] | NDArray[Any]) -> int:
        """Bytes of UTF-8 that these tokens stand for."""
        return len(self.decode(tokens).encode())


class Bytes(Tokenizer):
    """Each byte of UTF-8 is a token; 256 closes a document."""

    name, vocabulary, end = "bytes", 257, 256

    def encode(self, text: str) -> NDArray[np.uint32]:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint32)

    def decode(self, tokens: Sequence[int] | NDArray[Any]) -> str:
        return bytes(int(token) for token in tokens if token < 256).decode(errors="replace")

    def size(self, tokens: Sequence[int] | NDArray[Any]) -> int:
        return int((np.asarray(tokens) < 256).sum())


class Trained(Tokenizer):
    """A ``tokenizer.json`` of Hugging Face's ``tokenizers``, or a model folder that has one."""

    def __init__(self, path: Path) -> None:
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{file} does not exist; a tokenizer is 'bytes', a tokenizer.json or a folder with one")
        text = file.read_bytes()
        try:
            self._inner = _library().Tokenizer.from_str(text.decode())
        except Exception as error:  # the library raises Exception itself
            raise UserError(f"{file} is no tokenizer: {error}") from error
        self._text = text
        self.name = f"{file.name}:{sha256(text).hexdigest()[:16]}"
        self.vocabulary = self._inner.get_vocab_size(with_added_tokens=True)
        ends = [number for word in ENDS if (number := self._inner.token_to_id(word)) is not None]
        if not ends:
            raise UserError(f"{file} names no end of a document; it must have one of {', '.join(ENDS)}")
        self.end = ends[0]

    def encode(self, text: str) -> NDArray[np.uint32]:
        return np.asarray(self._inner.encode(text, add_special_tokens=False).ids, np.uint32)

    def save(self, path: Path) -> None:
        """Write the file again, byte for byte."""
        path.write_bytes(self._text)

    def decode(self, tokens: Sequence[int] | NDArray[Any]) -> str:
        return self._inner.decode([int(token) for token in tokens], skip_special_tokens=True)


def load(name: str | Path) -> Tokenizer:
    """``"bytes"``, or the tokenizer of a file or a model folder."""
    return Bytes() if str(name) == Bytes.name else Trained(Path(name))


def train(texts: Iterable[str], vocabulary: int, path: Path) -> Tokenizer:
    """Learn byte-level pairs (BPE) from texts, write ``path`` (a ``tokenizer.json``), and return the tokenizer.

    Raises ``UserError`` for a vocabulary smaller than the bytes and the end of a document.
    """
    library = _library()
    if vocabulary < 257:
        raise UserError(f"vocabulary={vocabulary}; it must hold the 256 bytes and the end of a document, 257 or more")
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = library.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    inner.save(str(path))
    return Trained(path)


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtra("a tokenizer other than 'bytes'", "tokenizers", "language") from error
    return tokenizers
