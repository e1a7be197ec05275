"""Needles by distance: Superlinear attention beside full attention, a window and searches without its parts
(arXiv 2601.18401)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fovea.tasks.language.config import NeedleConfig
from fovea.tasks.language.needles import ARMS, measure
from fovea.tasks.language.study import Found, Study, Tell
from fovea.tasks.report import Report
from fovea.tasks.run import RunDirectory

WORDS = {
    "superlinear": "Superlinear",
    "full": "full attention",
    "window": "window alone",
    "frozen search": "search never taught",
    "no accumulator": "keys that stand alone",
}
UNSEEN, WINDOW, SPAN, NEEDLE = (236, 236, 236), (180, 180, 180), (86, 180, 233), (213, 94, 0)
"""Colours told apart by people with any colour vision."""


class NeedleStudy(Study):
    """A marked value anywhere in noise, and which search still finds it."""

    title = "Superlinear attention"
    config = NeedleConfig

    def contestants(self, config: NeedleConfig) -> Mapping[str, Callable[[Tell], Found]]:
        training = replace(config.training, seed=config.seed)
        return {arm: lambda tell, arm=arm: measure(training, arms=(arm,), tell=tell) for arm in ARMS}

    def numbers(self, config: NeedleConfig, found: Mapping[str, Found]) -> dict[str, float]:
        return {f"found_{arm.replace(' ', '_')}": _outside(config, found[arm], arm) for arm in found}

    def page(self, run: RunDirectory, config: NeedleConfig, found: Mapping[str, Found]) -> Report:
        training, ours = config.training, found["superlinear"]
        keys = ours["keys"][str(training.length)]
        report = Report(
            "Needles by distance",
            f"One layer of attention over a short convolution learned here, in {training.steps} steps, to say the "
            f"value behind a marker that stands anywhere in {training.length} tokens. Superlinear attention reads at "
            f"most {keys} keys for it; full attention reads all.",
        )
        report.numbers(
            {
                f"found outside the window, {WORDS[arm]}": f"{100 * _outside(config, found[arm], arm):.0f} %"
                for arm in ("superlinear", "full", "window")
            },
            accent=f"found outside the window, {WORDS['superlinear']}",
        )
        report.heading("By distance")
        report.paragraph(
            f"Needles found, by their distance from the question; the window holds {ours['window']} tokens. "
            f"Chance is {100 * ours['chance']:.1f} %."
        )
        accuracies = {
            arm: values["arms"][arm]["lengths"][str(training.length)]["accuracy"] for arm, values in found.items()
        }
        width = training.length / len(accuracies["superlinear"])
        curves = {
            WORDS[arm]: [((band + 0.5) * width, 100 * right) for band, right in enumerate(accuracy)]
            for arm, accuracy in accuracies.items()
        }
        report.curves(curves, across="tokens from the question", up="% found", levels={"chance": 100 * ours["chance"]})
        report.table(
            ["network", "found outside the window", "needle in a chosen span", "taught at", "parameters"],
            [
                [
                    WORDS[arm],
                    f"{100 * _outside(config, found[arm], arm):.1f} %",
                    _percent(values["arms"][arm]["lengths"][str(training.length)].get("covered")),
                    f"{values['arms'][arm]['taught']} tokens",
                    f"{values['arms'][arm]['parameters']:,}",
                ]
                for arm, values in found.items()
            ],
        )
        report.heading("Where the last token looked")
        report.paragraph(
            "Each row is a question, the nearest needle on top; the tokens run from left to right. Grey the window, "
            "blue the spans that some head chose (darker: weighed more), orange the needle."
        )
        shown = ((arm, values["arms"][arm]) for arm, values in found.items() if "chosen" in values["arms"][arm])
        return report.pictures(
            [(WORDS[arm], _picture(values["chosen"], training.length, ours["window"])) for arm, values in shown],
            least=420,
            pixels=True,
        )


def _outside(config: NeedleConfig, found: Found, arm: str) -> float:
    return found["arms"][arm]["lengths"][str(config.training.length)]["outside"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _picture(chosen: list[Found], length: int, window: int, high: int = 14) -> np.ndarray:
    """``[rows, tokens, 3]``: the spans of each question in a band of ``high`` pixels."""
    image = np.full((len(chosen), high, length, 3), UNSEEN, np.uint8)
    for row, question in zip(image, chosen, strict=True):
        row[:, length - window :] = WINDOW
        weight = np.zeros(length)
        for head in question["spans"]:
            for first, last, share in head:
                weight[first : last + 1] = np.maximum(weight[first : last + 1], share)
        mixed = np.multiply.outer(weight, SPAN) + np.multiply.outer(1 - weight, UNSEEN)
        row[:, weight > 0] = mixed[weight > 0].round()
        row[:, max(0, question["place"] - 1) : question["place"] + 2] = NEEDLE
        row[-2:] = 255
    return image.reshape(-1, length, 3)


TASK = NeedleStudy()
