"""The demonstration of a language system: small models beside each other on one question; and the use of it on text."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fovea.errors import UsageError
from fovea.tasks.language import text
from fovea.tasks.language.config import TextConfig
from fovea.tasks.report import Report
from fovea.tasks.run import RunDirectory
from fovea.tasks.task import Task

Tell = Callable[[str], None]
Found = dict[str, Any]
DONE = "contestants.json"


class Study(Task):
    """Teaches contestants one after the other and shows what each has learned; trains the system itself on text.

    What a contestant has shown is kept in the run's folder, so that an interrupted study goes on with the next one.
    """

    title: str
    """Of the pages."""

    @abstractmethod
    def contestants(self, config: Any) -> Mapping[str, Callable[[Tell], Found]]:
        """By name, what teaches and measures each; ours is the first. They return what JSON can hold."""

    @abstractmethod
    def numbers(self, config: Any, found: Mapping[str, Found]) -> dict[str, float]:
        """The figures that stand for the study, for ``metrics.json``."""

    @abstractmethod
    def page(self, run: RunDirectory, config: Any, found: Mapping[str, Found]) -> Report:
        """The report, not yet written."""

    def run(
        self, config: TextConfig, run: RunDirectory, *, resume: bool = False, quiet: bool = False
    ) -> dict[str, float]:
        """Teach every contestant, and show them side by side."""
        began = time.perf_counter()
        contestants = self.contestants(config)
        run.start(config, seed=config.seed, resume=resume)
        done = run.path / DONE
        found: dict[str, Found] = json.loads(done.read_text()) if done.is_file() else {}

        def tell(message: str) -> None:
            run.say(message, quiet=quiet)

        for place, (name, measure) in enumerate(contestants.items(), start=1):
            if name not in found:
                tell(f"{place} of {len(contestants)}: {name}")
                found[name] = measure(tell)
                run.write(DONE, lambda path: path.write_text(json.dumps(found, indent=1)))
        found = {name: found[name] for name in contestants}
        measured = self.numbers(config, found)
        self.page(run, config, found).run(run, config).write(run.report)
        run.finish(measured)
        for name, value in measured.items():
            tell(f"{name} {value:.3g}")
        tell(f"{time.perf_counter() - began:.0f} s; the page to look at: {run.report}")
        return measured

    def train(
        self,
        config: TextConfig,
        run: RunDirectory,
        data: Path | None,
        *,
        checkpoint: Path | None = None,
        resume: bool = False,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Train the system's language model on text of the user's."""
        if data is None:
            raise UsageError("no text comes with this system; name yours with --data (.txt, .jsonl, .parquet, folders)")
        title = f"{self.title}: {data.name}"
        return text.train(config, run, data, title=title, checkpoint=checkpoint, resume=resume, quiet=quiet)

    def evaluate(
        self,
        config: TextConfig,
        checkpoint: Path | None,
        data: Path,
        *,
        run: RunDirectory | None = None,
        quiet: bool = False,
    ) -> dict[str, float]:
        """Bits a byte and perplexity of a checkpoint on text."""
        return text.evaluate(config, checkpoint, data, run=run, quiet=quiet)

    def predict(
        self,
        config: TextConfig,
        checkpoint: Path | None,
        inputs: Sequence[Path],
        output: Path,
        *,
        quiet: bool = False,
        **options: Any,
    ) -> list[Path]:
        """Go on with the text of files; ``options`` are those of :class:`fovea.tasks.language.predict.Writing`."""
        return text.predict(checkpoint, inputs, output, quiet=quiet, **options)
