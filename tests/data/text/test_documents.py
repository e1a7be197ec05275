"""Documents out of every format; bad files are told in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from fovea.data.text.documents import read, text_files
from fovea.errors import UserError

TEXTS = ["one\r\nline", "zwei Zeilen\nüber ①", ""]


def lines(texts: list[str]) -> str:
    return "\n\n".join(json.dumps({"text": text, "n": 1}) for text in texts)


def test_every_format_gives_the_same_documents(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "a.jsonl").write_text(lines(TEXTS), newline="")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(lines(TEXTS))
    parquet.write_table(pyarrow.table({"text": [*TEXTS, None], "n": [1, 2, 3, 4]}), tmp_path / "c.parquet")
    for file in text_files(tmp_path):
        assert list(read(file)) == TEXTS, file
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.txt").write_text(text, newline="")
        assert list(read(tmp_path / f"{number}.txt")) == [text]


def test_another_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x", "text": "y"}')
    assert list(read(tmp_path / "a.jsonl", "body")) == ["x"]


def test_files_are_found_in_folders_in_folders(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/er/b.TXT", "a.md", "deep/c.jsonl.gz", "deep/picture.png"):
        (tmp_path / name).write_text("")
    assert [file.name for file in text_files(tmp_path)] == ["a.md", "c.jsonl.gz", "b.TXT"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"fine\xff", "no text in UTF-8: byte 0xff at 4"),
        ("a.txt.gz", gzip.compress(b"a long text " * 99)[:-20], "cut short or damaged"),
        ("a.txt.gz", b"plain", "cut short or damaged"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', "line 2: no JSON"),
        ("a.jsonl", b'{"body": "x"}', "line 1: no text in field 'text'; there is: body"),
        ("a.jsonl", b'{"text": 3}', "line 1: no text"),
        ("a.jsonl", b"[1]", "line 1: no text in field 'text'; there is: list"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 9)[:-9], "cut short or damaged"),
        ("a.parquet", b"PAR1 no", "no Parquet file"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        list(read(tmp_path / name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_without_that_column(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": [1], "body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column of text named 'text'; it has: text, body"):
        list(read(tmp_path / "a.parquet"))


@pytest.mark.parametrize(("name", "told"), [("none", "does not exist"), ("a.png", "no file of text"), (".", "no text")])
def test_paths_without_text(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=told):
        text_files(tmp_path / name)
