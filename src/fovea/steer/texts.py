"""Text for a model that has its own tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from fovea.errors import UserError

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""Files that tell that a model folder has a tokenizer."""
KEYS = ("text", "content")
"""Under which a line of JSONL has its text."""


def encode(model: str | Path, vocabulary: int) -> Callable[[str], list[int]]:
    """From text to token ids: by the tokenizer in a model's folder; where there is none, the bytes of UTF-8."""
    folder = Path(model)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        if vocabulary < 256:
            raise UserError(f"{folder} holds no tokenizer, and its {vocabulary} tokens are too few for bytes (256)")
        return lambda text: list(text.encode())
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # What a damaged tokenizer raises is as various as what may be damaged in it.
        raise UserError(f"the tokenizer in {folder} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return lambda text: tokenizer.encode(text, add_special_tokens=False)


def tokens_of(path: Path, encoded: Callable[[str], list[int]]) -> Tensor:
    """``[tokens]``: all text of a file, or of a folder's ``.txt`` and ``.jsonl`` in the order of their names."""
    if not path.exists():
        raise UserError(f"data {str(path)!r} does not exist")
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in (".txt", ".jsonl"))
    if not files:
        raise UserError(f"{path} holds no .txt and no .jsonl")
    ids = [number for file in files for text in _texts(file) for number in encoded(text)]
    if not ids:
        raise UserError(f"{path} holds no text")
    return torch.tensor(ids, dtype=torch.int64)


def _texts(file: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    if file.suffix != ".jsonl":
        yield text
        return
    for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}, line {number}: no JSON: {error.msg}") from error
        found = next((value[key] for key in KEYS if isinstance(value, dict) and isinstance(value.get(key), str)), None)
        if found is None:
            raise UserError(f"{file}, line {number}: no text under any of: {', '.join(KEYS)}")
        yield found
