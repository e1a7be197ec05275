"""What a learning problem can be asked to do; the command line and the gallery know tasks only through this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fovea.tasks.run import RunDirectory


class Task(ABC):
    """One learning problem. A task package offers one instance as its attribute ``TASK``.

    ``config`` is always the task's own dataclass; what is measured comes back as a flat dict of numbers and is written
    into the run directory as ``metrics.json``. A user's mistake is a ``UserError`` or an ``OSError`` with one line.
    """

    config: type
    """The task's configuration dataclass."""

    @abstractmethod
    def run(self, config: Any, run: RunDirectory, *, resume: bool = False, quiet: bool = False) -> dict[str, float]:
        """The demonstration, end to end: data, training, evaluation, ``report.html``."""

    @abstractmethod
    def train(
        self,
        config: Any,
        run: RunDirectory,
        data: Path | None,
        *,
        checkpoint: Path | None = None,
        resume: bool = False,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Train on the user's ``data`` (``None``: what is embedded or generated), from ``checkpoint`` if given."""

    @abstractmethod
    def evaluate(
        self, config: Any, checkpoint: Path | None, data: Path, *, run: RunDirectory | None = None, quiet: bool = False
    ) -> dict[str, float]:
        """Measure a checkpoint (``None``: the weights that come with the system) on ``data``."""

    @abstractmethod
    def predict(
        self,
        config: Any,
        checkpoint: Path | None,
        inputs: Sequence[Path],
        output: Path,
        *,
        quiet: bool = False,
        **options: Any,
    ) -> list[Path]:
        """Apply a checkpoint to files; ``output`` is a file for one input, else a folder. Returns what was written."""
