"""What a memory gives back that a window no longer sees (AllMem, arXiv 2602.13680).

A short convolution and the mixer in question learn to say the values of keys that come again at any distance alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fovea.data.synthetic.recall import IGNORED, Recall, Segment, generate
from fovea.models.language_config import Layer
from fovea.tasks.language.memory_config import MemoryConfig
from fovea.tasks.language.recall import kept, train
from fovea.tasks.language.study import Found, Study, Tell
from fovea.tasks.report import Report
from fovea.tasks.run import RunDirectory

OURS = "window and AllMem"
BIN = 8
"""Tokens of distance that are counted together."""


def rivals(config: MemoryConfig) -> dict[str, Layer]:
    """The mixers that are compared, ours first: one head, no positions."""
    plain = {"heads": 1, "rotary_base": None}
    window = {**plain, "window": config.window}
    beside = {**window, "chunk": config.chunk, "rate": config.rate, "alpha": 0.5}
    return {
        OURS: Layer("memory", {**beside, "memory": "allmem"}),
        "window and linear memory": Layer("memory", {**beside, "memory": "linear"}),
        "window alone": Layer("window", window),
        "attention to everything": Layer("full", plain),
    }


def distances(inputs: Tensor, labels: Tensor) -> Tensor:
    """``[examples, length]``: how many tokens before a question the value it asks for was shown; 0 elsewhere."""
    row, place = (labels != IGNORED).nonzero(as_tuple=True)
    pair = (inputs[row] == inputs[row, place, None]).int().argmax(1)
    found = torch.zeros_like(labels)
    found[row, place] = place - (pair + 1)
    return found


class MemoryStudy(Study):
    """Pairs of keys and values, asked for within the window and beyond it."""

    title = "AllMem"
    config = MemoryConfig

    def contestants(self, config: MemoryConfig) -> Mapping[str, Callable[[Tell], Found]]:
        training = replace(config.training, seed=config.seed)
        ((length, pairs),) = training.taught

        def drawn(examples: int, seed: int) -> Recall:
            return generate(Segment(examples, length, pairs), training.vocabulary, seed, power=1.0)

        taught = [drawn(training.steps * training.batch, 2 * config.seed)]
        asked = drawn(training.questions, 2 * config.seed + 1)

        def measure(layer: Layer, tell: Tell) -> Found:
            model = train(layer, training, taught, tell)
            with torch.no_grad():
                right = torch.cat([model(part).argmax(-1) for part in asked.inputs.split(100)]) == asked.labels
            distance = distances(asked.inputs, asked.labels)
            near, far = (distance > 0) & (distance < config.window), distance >= config.window
            bins = {}
            for low in range(0, length, BIN):
                inside = (distance > 0) & (distance >= low) & (distance < low + BIN)
                if bool(inside.any()):
                    bins[str(low)] = float(right[inside].float().mean())
            return {
                "within": float(right[near].float().mean()),
                "beyond": float(right[far].float().mean()),
                "by_distance": bins,
                "state": kept(model, length),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
            }

        return {name: lambda tell, layer=layer: measure(layer, tell) for name, layer in rivals(config).items()}

    def numbers(self, config: MemoryConfig, found: Mapping[str, Found]) -> dict[str, float]:
        return {
            f"{part}_{name.replace(' ', '_')}": values[part]
            for part in ("beyond", "within", "state")
            for name, values in found.items()
        }

    def page(self, run: RunDirectory, config: MemoryConfig, found: Mapping[str, Found]) -> Report:
        ((length, pairs),) = config.training.taught
        report = Report(
            "Recall beyond the window",
            f"Sequences of {length} tokens begin with {pairs} keys and their values; later the keys come again, and "
            f"the model must say the value. A window of {config.window} tokens has lost most of them. A memory beside "
            "it, a small network, learns the pairs while the sequence is read.",
        )
        report.numbers(
            {f"{name}, beyond the window": f"{100 * values['beyond']:.1f} %" for name, values in found.items()},
            accent=f"{OURS}, beyond the window",
        )
        report.heading("Right answers by distance")
        report.paragraph(
            f"How far back the value was shown, in steps of {BIN} tokens. The window ends at {config.window}; the "
            "convolution before it sees two tokens more."
        )
        lines = {
            name: [(int(low) + BIN / 2, 100 * share) for low, share in values["by_distance"].items()]
            for name, values in found.items()
        }
        report.curves(lines, across="tokens since the value was shown", up="% right", levels=_chance(config))
        report.heading("What each keeps")
        rows = [
            [
                name,
                f"{100 * v['within']:.1f} %",
                f"{100 * v['beyond']:.1f} %",
                f"{v['state']:,}",
                f"{v['parameters']:,}",
            ]
            for name, v in found.items()
        ]
        heads = ["mixer", "right within", "right beyond", f"numbers kept after {length} tokens", "parameters"]
        return report.table(heads, rows)


def _chance(config: MemoryConfig) -> dict[str, float]:
    return {"chance": 200 / config.training.vocabulary}


TASK = MemoryStudy()
