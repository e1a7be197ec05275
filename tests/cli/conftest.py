"""The command line as its user meets it: arguments in; exit status, output and the line of an error out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fovea.cli.main import call
from fovea.systems import catalogue
from fovea.systems.system import Card, Claim, System
from fovea.tasks.run import RunDirectory
from fovea.tasks.task import Task


@dataclass
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def fovea(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """``fovea("list", "--json")`` in this process."""

    def run(*words: str) -> Result:
        capsys.readouterr()
        status = call([str(word) for word in words])
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``process("list")`` in a process of its own."""

    def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **options.pop("env", {})}
        command = [sys.executable, "-m", "fovea", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)

    return run


@dataclass(frozen=True)
class Hardware:
    devices: int = 1


@dataclass(frozen=True)
class Config:
    steps: int = 10
    rate: float = 0.5
    hardware: Hardware = field(default_factory=Hardware)


class Recorder(Task):
    """A task that remembers how it was called."""

    config = Config

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.raises: BaseException | None = None

    def _called(self, name: str, **what: Any) -> None:
        self.calls.append((name, what))
        if self.raises is not None:
            raise self.raises

    def run(self, config: Any, run: RunDirectory, *, resume: bool = False, quiet: bool = False) -> dict[str, float]:
        run.start(config, seed=0, resume=resume)
        run.report.write_text("<html>")
        self._called("run", config=config, path=run.path, resume=resume, quiet=quiet)
        return {"psnr": 31.25, "steps": 10}

    def train(self, config: Any, run: RunDirectory, data: Path | None, **options: Any) -> dict[str, float]:
        self._called("train", config=config, path=run.path, data=data, **options)
        return {"loss": 0.125}

    def evaluate(self, config: Any, checkpoint: Path | None, data: Path, **options: Any) -> dict[str, float]:
        self._called("evaluate", config=config, checkpoint=checkpoint, data=data, **options)
        return {"psnr": 30.0}

    def predict(  # type: ignore[override]
        self,
        config: Any,
        checkpoint: Path | None,
        inputs: list[Path],
        output: Path,
        *,
        quiet: bool = False,
        tile: int | None = None,
    ) -> list[Path]:
        self._called("predict", config=config, checkpoint=checkpoint, inputs=inputs, output=output, tile=tile)
        return [output]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    """A ready system ``fake`` whose task records its calls; the working folder is empty."""
    task = Recorder()
    module = ModuleType("fake_task")
    module.TASK = task  # type: ignore[attr-defined]
    module.measure = lambda quiet: {"ours": 2.5}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_task", module)
    card = Card(
        slug="fake",
        title="A Fake",
        about="Tests",
        year=2024,
        authors=1,
        paper=None,
        code=None,
        licence=None,
        area="language",
        idea="Does nothing.",
        carried_by=("tasks",),
        status="ready",
    )
    system = System(
        card,
        presets={"demo": Config(), "paper": Config(steps=1000)},
        task="fake_task",
        claims=(Claim("better", "Ours is better.", "3 dB", "fake_task:measure"),),
    )
    real = catalogue.get
    monkeypatch.setattr(catalogue, "get", lambda slug: system if slug == "fake" else real(slug))
    monkeypatch.chdir(tmp_path)
    return task
