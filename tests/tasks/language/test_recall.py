"""The recall experiment: what is counted, and that attention learns what a window cannot."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fovea.data.synthetic.recall import Recall
from fovea.models.language import LanguageModel
from fovea.models.language_config import LanguageConfig, Layer
from fovea.tasks.language.recall import RIVALS, RecallTraining, compare, examine, kept, measure

TINY = RecallTraining(
    dim=32,
    vocabulary=40,
    taught=((16, 2),),
    asked=((16, 2), (32, 4)),
    questions=50,
    steps=250,
    batch=32,
    rate=1e-2,
)


def test_attention_learns_to_recall_and_a_window_of_one_does_not() -> None:
    attention = measure(RIVALS["attention"], TINY)
    assert attention["accuracy"]["16 tokens, 2 pairs"] > 0.9
    blind = measure(Layer("window", {"heads": 1, "window": 1, "rotary_base": None}), TINY)
    assert blind["accuracy"]["16 tokens, 2 pairs"] < 0.5


def test_seeds_are_summed_up_for_each_rival() -> None:
    short = replace(TINY, steps=3, questions=10)
    heard: list[str] = []
    found = compare(short, (3, 4), {"f = 2": Layer("taylor", {"heads": 1, "feature_dim": 2})}, tell=heard.append)
    again = compare(short, (3, 4), {"f = 2": Layer("taylor", {"heads": 1, "feature_dim": 2})})
    assert json.loads(json.dumps(found)) == again
    values = found["f = 2"]["accuracy"]["32 tokens, 4 pairs"]
    assert values["mean"] == pytest.approx(sum(values["seeds"]) / 2)
    assert len(values["seeds"]) == 2
    assert found["f = 2"]["state_bytes"] == {"16": 4 * (3 * 32 + 6 * 33), "32": 4 * (3 * 32 + 6 * 33)}
    assert heard[-1].startswith("f = 2: ")


def test_state_of_attention_is_that_of_the_tokens_it_has_read() -> None:
    layers = (Layer("base-convolution"), RIVALS["attention"], RIVALS["window of 16"])
    model = LanguageModel(LanguageConfig(9, 8, layers))
    assert kept(model, 100) == 3 * 8 + 2 * 8 * 100 + 2 * 8 * 16


def test_accuracy_is_over_the_places_that_ask() -> None:
    class Parrot(LanguageModel):
        def features(self, tokens: torch.Tensor, documents: torch.Tensor | None = None) -> torch.Tensor:
            return torch.nn.functional.one_hot(tokens, 9).float()

    model = Parrot(LanguageConfig(9, 9, (Layer("base-convolution"),)))
    model.embedding.weight.data = torch.eye(9)
    inputs = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    labels = torch.tensor([[-100, 2, -100, 3], [-100, -100, 7, -100]])
    assert examine(model, Recall(inputs, labels)) == pytest.approx(2 / 3)
