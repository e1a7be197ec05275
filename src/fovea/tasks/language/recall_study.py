"""How much is recalled for what is kept: Based beside attention, smaller memories and a window (arXiv 2402.18668)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from fovea.tasks.language.config import RecallConfig
from fovea.tasks.language.recall import RIVALS, lessons, measure
from fovea.tasks.language.study import Found, Study, Tell
from fovea.tasks.report import Report
from fovea.tasks.run import RunDirectory

OURS = "based, f = 16"


class RecallStudy(Study):
    """Pairs of keys and values, and which model still knows them."""

    title = "Based"
    config = RecallConfig

    def contestants(self, config: RecallConfig) -> Mapping[str, Callable[[Tell], Found]]:
        training = replace(config.training, seed=config.seed)
        taught = lessons(training)
        names = [OURS, *(name for name in RIVALS if name != OURS)]
        return {name: lambda tell, name=name: measure(RIVALS[name], training, taught, tell=tell) for name in names}

    def numbers(self, config: RecallConfig, found: Mapping[str, Found]) -> dict[str, float]:
        hardest = _asked(found)[-1]
        numbers = {f"accuracy_{_key(name)}": values["accuracy"][hardest] for name, values in found.items()}
        return numbers | {f"bytes_{_key(name)}": float(_bytes(values)) for name, values in found.items()}

    def page(self, run: RunDirectory, config: RecallConfig, found: Mapping[str, Found]) -> Report:
        asked = _asked(found)
        training = config.training
        report = Report(
            "Recall for what is kept",
            f"Two layers, a short convolution and the mixer in question, learned here in {training.steps} steps to "
            f"give back the value of a key that they were shown before. Attention keeps all it has read; Based keeps "
            f"a state of fixed size, and a window forgets.",
        )
        ours, attention = found[OURS], found["attention"]
        report.numbers(
            {
                f"recalled by Based, {asked[-1]}": f"{100 * ours['accuracy'][asked[-1]]:.1f} %",
                f"recalled by attention, {asked[-1]}": f"{100 * attention['accuracy'][asked[-1]]:.1f} %",
                "kept by Based": f"{_bytes(ours) / 1024:.0f} KiB",
                "kept by attention": f"{_bytes(attention) / 1024:.0f} KiB",
            },
            accent=f"recalled by Based, {asked[-1]}",
        )
        report.heading("Recall against what is kept")
        report.paragraph(
            f"Each point is a model asked in sequences of {_longest(ours)} tokens: bytes of its state at their end "
            f"(float32), and the share of values that it says right ({asked[-1]}). Chance is "
            f"{100 / (training.vocabulary // 2):.1f} %."
        )
        points = sorted(
            (_bytes(values) / 1024, 100 * values["accuracy"][asked[-1]], name) for name, values in found.items()
        )
        memories = [(size, right) for size, right, name in points if name.startswith("based")]
        others = {name: [(size, right)] for size, right, name in points if not name.startswith("based")}
        report.curves({"based, f = 4, 8, 16": memories, **others}, across="KiB kept", up="% of values recalled")
        report.heading("Every examination")
        rows = [
            [
                name,
                *(f"{100 * values['accuracy'][at]:.1f} %" for at in asked),
                f"{_bytes(values):,}",
                f"{values['parameters']:,}",
            ]
            for name, values in found.items()
        ]
        longest = _longest(ours)
        return report.table(["mixer", *asked, f"bytes kept after {longest} tokens", "parameters"], rows)


def _asked(found: Mapping[str, Found]) -> list[str]:
    return list(next(iter(found.values()))["accuracy"])


def _longest(values: Found) -> int:
    return max(map(int, values["state_bytes"]))


def _bytes(values: Found) -> int:
    return values["state_bytes"][str(_longest(values))]


def _key(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())


TASK = RecallStudy()
