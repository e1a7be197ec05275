"""Tokenised text on disk: files of tokens that are mapped into memory, of any size.

corpus.json        what the rest is: tokenizer, number of tokens and documents, type of a token
tokens-00000.bin   tokens, little-endian; each document is closed by the tokenizer's end
documents.bin      for each document the number of its first token, 64 bits
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.data.text.tokenizer import Tokenizer
from fovea.errors import UserError

FORMAT = 1
SHARD = 1 << 28
"""Tokens a file."""


@dataclass(frozen=True)
class Facts:
    """What ``corpus.json`` says.

    Attributes:
        tokenizer: the name of the one that made the tokens.
        vocabulary, end: of that tokenizer.
        tokens, documents: how many there are.
        characters, bytes: of the text, its bytes in UTF-8; for measures by character or byte.
        width: bytes a token, 2 or 4.
        shard: tokens a file.
        version: of the format.
    """

    tokenizer: str
    vocabulary: int
    end: int
    tokens: int
    documents: int
    characters: int
    bytes: int
    width: int
    shard: int
    version: int = FORMAT


def write(folder: Path, texts: Iterable[str], tokenizer: Tokenizer, *, shard: int = SHARD) -> Corpus:
    """Tokenise documents one after the other into a new ``folder``, which appears when all is written.

    Raises ``UserError`` where the folder is there already, or where there is no text.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already; a corpus needs a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        facts = _write(building, texts, tokenizer, shard)
        (building / "corpus.json").write_text(json.dumps(asdict(facts), indent=2) + "\n")
        building.chmod(0o755)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return Corpus(folder)


def _write(building: Path, texts: Iterable[str], tokenizer: Tokenizer, shard: int) -> Facts:
    width = 2 if tokenizer.vocabulary <= 1 << 16 else 4
    tokens = documents = characters = size = 0
    with (building / "documents.bin").open("wb") as starts:
        for text in texts:
            if not text:
                continue
            made = np.append(tokenizer.encode(text), np.uint32(tokenizer.end)).astype(f"<u{width}")
            starts.write(np.array(tokens, "<i8").tobytes())
            for begin in _cuts(tokens, len(made), shard):
                part = made[max(0, begin - tokens) : (begin // shard + 1) * shard - tokens]
                with (building / _name(begin // shard)).open("ab") as file:
                    file.write(part.tobytes())
            tokens += len(made)
            documents += 1
            characters += len(text)
            size += len(text.encode())
    if not documents:
        raise UserError("there is no text to learn from: every document is empty")
    return Facts(tokenizer.name, tokenizer.vocabulary, tokenizer.end, tokens, documents, characters, size, width, shard)


def _cuts(tokens: int, count: int, shard: int) -> list[int]:
    """Where the parts begin that tokens ``tokens .. tokens + count - 1`` fall into, a part a file."""
    first = tokens // shard + 1
    return [tokens, *range(first * shard, tokens + count, shard)]


def _name(number: int) -> str:
    return f"tokens-{number:05d}.bin"


class Corpus:
    """Tokens of many documents, read from disk where they are looked at.

    Raises ``UserError`` for a folder that is no corpus, or whose files have other sizes than it says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.facts = Facts(**json.loads((folder / "corpus.json").read_text()))
        except FileNotFoundError as error:
            raise UserError(f"{folder} is no corpus: it has no corpus.json") from error
        except (ValueError, TypeError) as error:
            raise UserError(f"{folder / 'corpus.json'} cannot be read: {error}") from error
        if self.facts.version != FORMAT:
            raise UserError(f"{folder} has version {self.facts.version} of the format; this fovea reads {FORMAT}")
        facts = self.facts
        self._files = [
            _mapped(folder / _name(number), f"<u{facts.width}", min(facts.shard, facts.tokens - begin))
            for number, begin in enumerate(range(0, facts.tokens, facts.shard))
        ]
        self.starts: NDArray[np.int64] = _mapped(folder / "documents.bin", "<i8", facts.documents)

    def __len__(self) -> int:
        return self.facts.tokens

    def tokens(self, begin: int, count: int) -> NDArray[np.int64]:
        """``[count]`` tokens from ``begin`` on, fewer at the corpus's end."""
        stop = min(begin + count, len(self))
        shard = self.facts.shard
        parts = [
            self._files[number][max(0, begin - number * shard) : stop - number * shard]
            for number in range(begin // shard, -(-stop // shard))
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)

    def documents(self, begin: int, count: int) -> NDArray[np.int64]:
        """``[count]``: the number of the document of each of these tokens."""
        return np.searchsorted(self.starts, np.arange(begin, min(begin + count, len(self))), side="right") - 1


def _mapped(path: Path, kind: str, count: int) -> Any:
    size = count * np.dtype(kind).itemsize
    if not path.is_file() or path.stat().st_size != size:
        found = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
        raise UserError(f"{path} is {found}; by corpus.json it must have {size} bytes")
    return np.memmap(path, kind, mode="r", shape=(count,))
