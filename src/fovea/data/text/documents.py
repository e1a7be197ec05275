"""Documents out of plain text, JSON lines and Parquet, compressed or not, one after the other."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from fovea.errors import MissingExtra, UserError

PLAIN, LINES, TABLE = (".txt", ".md", ".text"), (".jsonl", ".ndjson"), (".parquet",)
SUFFIXES = (*PLAIN, *LINES, *TABLE, *(f"{suffix}.gz" for suffix in (*PLAIN, *LINES)))


def text_files(path: Path) -> list[Path]:
    """``path`` itself, or all files of text in that folder and those in it, by name.

    Raises ``UserError`` where there are none.
    """
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(SUFFIXES))
        if not found:
            raise UserError(f"{path} holds no text; files may end in {', '.join(SUFFIXES)}")
        return found
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.name.lower().endswith(SUFFIXES):
        raise UserError(f"{path} is no file of text that is known; it may end in {', '.join(SUFFIXES)}")
    return [path]


def read(path: Path, field: str = "text") -> Iterator[str]:
    """The documents of a file: all of a plain text is one; of JSON lines and Parquet each row is one, its ``field``.

    Files are read piece by piece, but for plain text. Raises ``UserError`` that names the file and the line.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(TABLE):
        yield from _table(path, field)
    elif name.endswith(LINES):
        yield from _lines(path, field)
    else:
        try:
            with _opened(path) as file:
                yield file.read()
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _broken(path, error) from error


def _opened(path: Path):
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _broken(path: Path, error: Exception) -> UserError:
    if isinstance(error, UnicodeDecodeError):
        return UserError(f"{path} is no text in UTF-8: byte {error.object[error.start]:#04x} at {error.start}")
    return UserError(f"{path} is cut short or damaged: {error}")


def _lines(path: Path, field: str) -> Iterator[str]:
    number = 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise UserError(f"{path}, line {number}: no JSON ({error})") from error
                if not isinstance(row, dict) or not isinstance(row.get(field), str):
                    keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
                    raise UserError(f"{path}, line {number}: no text in field {field!r}; there is: {keys}")
                yield row[field]
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{_broken(path, error)}, after line {number}") from error


def _table(path: Path, field: str) -> Iterator[str]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("reading Parquet", "pyarrow", "language") from error
    try:
        with parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if field not in names or not pyarrow.types.is_string(table.schema_arrow.field(field).type):
                raise UserError(f"{path} has no column of text named {field!r}; it has: {', '.join(names)}")
            for batch in table.iter_batches(batch_size=1024, columns=[field]):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is no Parquet file that can be read: {error}") from error
