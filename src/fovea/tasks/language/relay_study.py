"""How far a value is found, beside how far patterns reach: PowerAttention and its rivals (arXiv 2503.03588)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

from fovea.data.synthetic.relay import Relay
from fovea.tasks.language.config import RelayConfig
from fovea.tasks.language.relay import by_band, measure, pattern_of, rivals
from fovea.tasks.language.study import Found, Study, Tell
from fovea.tasks.report import Report, drawn
from fovea.tasks.run import RunDirectory

WORDS = {
    "power": "PowerAttention",
    "full": "full attention",
    "sliding": "sliding window",
    "dilated": "dilated window",
    "longnet": "LongNet",
    "strided": "stride slash",
    "one-power": "one power a layer",
    "searched": "searched offsets",
}


class RelayStudy(Study):
    """A value hidden anywhere in noise, and which pattern still finds it."""

    title = "PowerAttention"
    config = RelayConfig

    def contestants(self, config: RelayConfig) -> Mapping[str, Callable[[Tell], Found]]:
        relay = Relay(config.size * config.blocks)
        training = replace(config.training, seed=config.seed)
        layers = rivals(config.depth, size=config.size, blocks=config.blocks)
        names = ["power", *(name for name in layers if name != "power")]
        return {name: lambda tell, name=name: measure(layers[name], relay, training, tell=tell) for name in names}

    def numbers(self, config: RelayConfig, found: Mapping[str, Found]) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name, values in found.items():
            numbers[f"inside_{name}"] = values["inside"]
            if values["outside"] is not None:
                numbers[f"outside_{name}"] = values["outside"]
        return numbers

    def page(self, run: RunDirectory, config: RelayConfig, found: Mapping[str, Found]) -> Report:
        ours = found["power"]
        length = config.size * config.blocks
        report = Report(
            "Found where it is reached",
            f"{config.depth} layers of each pattern learned here, in {config.training.steps} steps, to say a value "
            f"that stands anywhere in {length} tokens of noise. A token that no {config.depth} steps of a pattern lead "
            f"to can only be guessed (chance {100 * ours['chance']:.1f} %).",
        )
        outside = ours["outside"]
        report.numbers(
            {
                "found by PowerAttention where it reaches": f"{100 * ours['inside']:.0f} %",
                "and where it does not": "all is reached" if outside is None else f"{100 * outside:.0f} %",
                "of full attention's pairs": f"{100 * ours['pairs'] / found['full']['pairs']:.0f} %",
            },
            accent="found by PowerAttention where it reaches",
        )
        report.heading("By distance")
        report.paragraph(
            "Share of values found, by the distance of the value from the question. Below it, from where each pattern "
            "reaches in so many layers."
        )
        for name in ("power", *(name for name in found if name != "power")):
            values = found[name]
            steps = values["steps"]
            accuracy = [(far, 100 * right) for far, right in enumerate(values["accuracy"], start=1)]
            reached = [(far, 100.0 * (step >= 0)) for far, step in enumerate(steps, start=1)]
            report.paragraph(f"{WORDS[name]}: reaches {100 * values['reached']:.0f} % of the distances.")
            report.curves({"found": accuracy, "reached": reached}, across="tokens from the question", up="%")
        report.heading("Side by side")
        report.table(
            ["pattern", "pairs a layer", "reached", "found inside", "found outside", *_bands(ours)],
            [
                [
                    WORDS[name],
                    f"{values['pairs']:,.0f}",
                    f"{100 * values['reached']:.0f} %",
                    f"{100 * values['inside']:.0f} %",
                    "-" if values["outside"] is None else f"{100 * values['outside']:.0f} %",
                    *(f"{100 * band:.0f} %" for band in by_band(values)),
                ]
                for name, values in found.items()
            ],
        )
        report.heading("What each sees")
        layers = rivals(config.depth, size=config.size, blocks=config.blocks)
        pictures = [(WORDS[name], drawn(pattern_of(layers[name][-1]).draw(length))) for name in found]
        return report.pictures(pictures, least=300)


def _bands(values: Found) -> list[str]:
    """Names of the five bands of distance."""
    count = len(values["accuracy"])
    edges = [round(count * band / 5) for band in range(6)]
    return [f"{low + 1}-{high}" for low, high in pairwise(edges)]


TASK = RelayStudy()
