from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from fovea.errors import UsageError, UserError
from fovea.tasks.run import RunDirectory, replacing


@dataclass(frozen=True)
class Settings:
    steps: int = 5
    width: int = 8


def test_start_writes_what_repeats_the_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "runs" / "first", quiet=True)
    run.start(Settings(steps=7), seed=3)
    assert run.config(Settings) == Settings(steps=7)
    assert (run.path / "seed").read_text() == "3\n"
    versions = json.loads((run.path / "versions.json").read_text())
    assert {"python", "torch", "fovea", "system", "cores"} <= set(versions)
    assert [path.name for path in run.path.iterdir() if path.name.startswith(".")] == []


def test_an_occupied_folder_is_refused_unless_its_run_goes_on(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, quiet=True)
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        run.start(Settings(), seed=0)
    with pytest.raises(UsageError, match="no earlier run"):
        run.start(Settings(), seed=0, resume=True)
    (tmp_path / "precious.txt").unlink()
    run.start(Settings(), seed=0)
    with pytest.raises(UsageError, match="--resume"):
        run.start(Settings(), seed=0)
    run.start(Settings(), seed=0, resume=True)
    with pytest.raises(UsageError, match="width 8 -> 9"):
        run.start(Settings(width=9), seed=0, resume=True, changeable=("steps",))
    run.start(Settings(steps=9), seed=0, resume=True, changeable=("steps",))
    assert run.config(Settings).steps == 9


def test_a_file_or_a_locked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        RunDirectory(tmp_path / "file").start(Settings(), seed=0)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(UserError, match="no permission"):
        RunDirectory(locked / "run").start(Settings(), seed=0)


def test_no_permission_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="no permission to write in"):
        RunDirectory(tmp_path / "run").start(Settings(), seed=0)


def test_measurements_survive_a_cut_line_and_are_forgotten_after_a_step(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, quiet=True)
    run.start(Settings(), seed=0)
    for step in range(1, 6):
        run.measure(step=step, loss=1 / step)
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 6, "lo')
    assert [line["step"] for line in run.measurements()] == [1, 2, 3, 4, 5]
    run.forget_after(3)
    assert run.measurements()[-1] == {"step": 3, "loss": 1 / 3}


def test_replacing_keeps_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_say_writes_the_log_and_respects_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory(tmp_path)
    run.start(Settings(), seed=0)
    run.say("aloud")
    run.say("for the log", quiet=True)
    RunDirectory(tmp_path, quiet=True).say("also for the log")
    assert capsys.readouterr().err == "aloud\n"
    assert [line.split(" ", 2)[2] for line in run.path.joinpath("log.txt").read_text().splitlines()] == [
        "aloud",
        "for the log",
        "also for the log",
    ]
