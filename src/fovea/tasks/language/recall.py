"""How much small models recall, and what they keep for it: the trade-off of Based (arXiv 2402.18668, figure 2).

Two layers, a short convolution and the mixer in question, learn multi-query associative recall on short sequences with
few pairs, and are asked on those and on longer ones with more. Softmax attention keeps every key; a memory of fixed
size can hold only so many pairs; a window forgets what has left it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.data.synthetic.recall import IGNORED, Recall, Segment, batches, generate, segment_seeds
from fovea.models.language import LanguageModel
from fovea.models.language_config import LanguageConfig, Layer
from fovea.nn.language_attention import FullAttention
from fovea.nn.mixer import Mixer
from fovea.tasks.language.lessons import RecallTraining

RIVALS: dict[str, Layer] = {
    "attention": Layer("full", {"heads": 1, "rotary_base": None}),
    "based, f = 16": Layer("taylor", {"heads": 1, "feature_dim": 16}),
    "based, f = 8": Layer("taylor", {"heads": 1, "feature_dim": 8}),
    "based, f = 4": Layer("taylor", {"heads": 1, "feature_dim": 4}),
    "window of 16": Layer("window", {"heads": 1, "window": 16, "rotary_base": None}),
}
"""The mixers of figure 2 at one head and no positions: attention, linear attention of three sizes, a window alone."""


def compare(
    training: RecallTraining,
    seeds: Iterable[int] = (0,),
    rivals: Mapping[str, Layer] | None = None,
    *,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """:func:`measure` for each rival and seed: means, and each seed's values.

    Returns a dictionary that JSON can hold, by the rivals' names: ``accuracy`` (``{"64 tokens, 4 pairs": {"mean": ...,
    "deviation": ..., "seeds": [...]}}``), ``state_bytes`` by length, ``parameters``.
    """
    rivals = RIVALS if rivals is None else rivals
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in rivals}
    for seed in seeds:
        seeded = replace(training, seed=seed)
        taught = lessons(seeded)
        for name, layer in rivals.items():
            measured[name].append(measure(layer, seeded, taught, tell=tell))
    found = {}
    for name, runs in measured.items():
        accuracy = {asked: _summary([run["accuracy"][asked] for run in runs]) for asked in runs[0]["accuracy"]}
        found[name] = {**runs[0], "accuracy": accuracy}
        if tell is not None:
            told = ", ".join(f"{asked}: {values['mean']:.3f}" for asked, values in accuracy.items())
            tell(f"{name}: {told}; {found[name]['state_bytes']}")
    return found


def measure(
    layer: Layer,
    training: RecallTraining,
    taught: Sequence[Recall] | None = None,
    *,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a convolution and this layer, and ask.

    ``taught`` are the :func:`lessons` of this training, where several layers share them.

    Returns a dictionary that JSON can hold: ``accuracy`` (share of values said right) by examination, ``state_bytes``
    (float32, of a sequence's state at its end) by length, ``parameters``.
    """
    model = train(layer, training, lessons(training) if taught is None else taught, tell)
    _, seeds = segment_seeds(0, len(training.asked), training.seed)
    accuracy, sizes = {}, {}
    for (length, pairs), seed in zip(training.asked, seeds, strict=True):
        segment = _generated(training, training.questions, length, pairs, seed)
        accuracy[f"{length} tokens, {pairs} pairs"] = examine(model, segment)
        sizes[str(length)] = 4 * kept(model, length)
    return {
        "accuracy": accuracy,
        "state_bytes": sizes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def lessons(training: RecallTraining) -> list[Recall]:
    """What is learned from, a segment of each difficulty; each sequence is new."""
    seeds, _ = segment_seeds(len(training.taught), 0, training.seed)
    examples = -(-training.steps * training.batch // len(training.taught))
    return [
        _generated(training, examples, length, pairs, seed)
        for (length, pairs), seed in zip(training.taught, seeds, strict=True)
    ]


def train(
    layer: Layer,
    training: RecallTraining,
    taught: Sequence[Recall],
    tell: Callable[[str], None] | None = None,
) -> LanguageModel:
    """A model of a convolution and this layer that has learned to recall; pure in the seed."""
    torch.manual_seed(training.seed)
    layers = (Layer("base-convolution", {"kernel": 3}), layer)
    model = LanguageModel(LanguageConfig(training.vocabulary, training.dim, layers))
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, total_steps=training.steps)
    order = batches(taught, training.batch, seed=training.seed)
    for step, (inputs, labels) in zip(range(training.steps), order, strict=False):
        logits, wanted = asked(model, inputs, labels)
        loss = F.cross_entropy(logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if tell is not None and step % 100 == 99:
            tell(f"{layer.mixer}, step {step + 1}: loss {loss.item():.3f}")
    return model.eval()


def asked(model: LanguageModel, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits ``[questions, vocabulary]`` at the places where a value is asked, and the values."""
    places = labels != IGNORED
    return model.logits(model.features(inputs)[places]), labels[places]


@torch.no_grad()
def examine(model: LanguageModel, segment: Recall, size: int = 100) -> float:
    """The share of values that the model says right."""
    right = total = 0
    for inputs, labels in batches([segment], size, shuffle=False):
        logits, wanted = asked(model, inputs, labels)
        right, total = right + int((logits.argmax(-1) == wanted).sum()), total + len(wanted)
    return right / total


def kept(model: LanguageModel, length: int) -> int:
    """Numbers that the state of a sequence of ``length`` tokens needs; where all keys are kept, without spare room."""
    mixers = (module for module in model.modules() if isinstance(module, Mixer))
    return sum(
        2 * mixer.kv_heads * mixer.head_dim * length if isinstance(mixer, FullAttention) else mixer.state_size(length)
        for mixer in mixers
    )


def _generated(training: RecallTraining, examples: int, length: int, pairs: int, seed: int) -> Recall:
    filler_seed = seed if training.fillers else None
    return generate(Segment(examples, length, pairs), training.vocabulary, seed, filler_seed=filler_seed)


def _summary(values: Sequence[float]) -> dict[str, Any]:
    deviation = stdev(values) if len(values) > 1 else 0.0
    return {"mean": mean(values), "deviation": deviation, "seeds": list(values)}
