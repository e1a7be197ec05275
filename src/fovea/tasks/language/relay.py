"""The relay: how far small models find a value, beside how far their patterns reach (PowerAttention, arXiv 2503.03588).

A network of ``n`` sparse layers can know a token only if ``n`` steps of its patterns lead there. Trained models are
asked for a value at every distance; where no steps lead, they can but guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fovea.data.synthetic.relay import Relay
from fovea.models.language import LanguageModel
from fovea.models.language_config import LanguageConfig, Layer, block_layers, power_attention
from fovea.patterns import Blocks, Causal, Pattern, SlidingWindow, parse
from fovea.patterns.cost import count_pairs
from fovea.patterns.reach import receptive_field
from fovea.tasks.language.lessons import RelayTraining


def rivals(depth: int, *, size: int = 4, blocks: int = 16, heads: int = 2) -> dict[str, tuple[Layer, ...]]:
    """Layers of each pattern at about the key blocks of PowerAttention with a window of two, and full attention.

    At 16 blocks, the last block sees 6 with all but LongNet's (4), and one power a layer with a window of three (5).
    """
    words = {"heads": heads}
    powers = sum(2 <= 1 << k < blocks for k in range(blocks.bit_length()))
    budget = 2 + 1 + powers
    segments = tuple((4 << k, 1 << k) for k in range(max(1, (blocks // 4).bit_length())))
    sized = {"size": size, "blocks": blocks, "window": 2, "depth": depth, **words}
    return {
        "full": (Layer("full", words),) * depth,
        "sliding": block_layers([Blocks.sliding(size, budget - 1)] * depth, **words),
        "dilated": block_layers([Blocks.dilated(size, 2 * budget)] * depth, **words),
        "longnet": block_layers([Blocks.longnet(size, segments)] * depth, **words),
        "strided": block_layers([Blocks.strided(size, 2, -(-blocks // (powers + 1)))] * depth, **words),
        "power": power_attention("power", depth, **sized),
        "one-power": power_attention("one-power", depth, **{**sized, "window": 3}),
        "searched": power_attention("searched", depth, **sized),
    }


def pattern_of(layer: Layer) -> Pattern:
    """What a token of an attention layer sees."""
    if layer.mixer == "blocks":
        return parse(layer.options["pattern"])
    if layer.mixer == "window" and not layer.options.get("sinks"):
        return SlidingWindow(layer.options["window"] - 1)
    if layer.mixer == "full":
        return Causal()
    raise ValueError(f"layer {layer} has no pattern whose reach is known")


def measure(
    layers: Sequence[Layer],
    relay: Relay,
    training: RelayTraining | None = None,
    *,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a model of these layers, and ask it for values at every distance.

    Returns a dictionary that JSON can hold: ``accuracy`` and ``steps`` (layers after which the pattern reaches the
    value; -1: never) for each distance from 1 on; the means ``inside`` and ``outside`` of the reach (``outside`` is
    none where all is reached); ``reached``, the share of distances; ``pairs``, query-key pairs a layer; ``chance``.
    """
    training = RelayTraining() if training is None else training
    config = LanguageConfig(relay.vocabulary, training.dim, tuple(layers), hidden=training.hidden)
    model = train(config, relay, training, tell)
    accuracy = examine(model, relay, training)
    patterns = [pattern_of(layer) for layer in layers]
    depths = receptive_field(patterns, relay.length).depths[::-1][1 : relay.farthest + 1]
    seen = depths >= 0
    return {
        "accuracy": [round(float(a), 4) for a in accuracy],
        "steps": depths.tolist(),
        "inside": float(accuracy[seen].mean()),
        "outside": float(accuracy[~seen].mean()) if not seen.all() else None,
        "reached": float(seen.mean()),
        "pairs": sum(count_pairs(pattern, (relay.length,), (relay.length,)) for pattern in patterns) / len(patterns),
        "chance": 1 / relay.values,
    }


def train(
    config: LanguageConfig, relay: Relay, training: RelayTraining, tell: Callable[[str], None] | None = None
) -> LanguageModel:
    """A model that has learned the relay; pure in the seed."""
    torch.manual_seed(training.seed)
    source = np.random.default_rng(training.seed)
    model = LanguageModel(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, total_steps=training.steps)
    for step in range(training.steps):
        grown = min(1.0, step / (training.growth * training.steps)) if training.growth else 1.0
        bound = round(training.start + (relay.farthest - training.start) * grown)
        tokens, answers = relay.draw(source.integers(1, bound + 1, training.batch), source)
        logits = model(torch.from_numpy(tokens))[:, -1, : relay.values]
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(answers))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if tell is not None and step % 100 == 99:
            tell(f"step {step + 1}: loss {loss.item():.3f}, distances up to {bound}")
    return model.eval()


@torch.no_grad()
def examine(model: LanguageModel, relay: Relay, training: RelayTraining) -> np.ndarray:
    """Accuracy at the distances 1, 2, ..., farthest; sequences that no training has drawn."""
    source = np.random.default_rng((training.seed, 1))
    found = np.empty(relay.farthest)
    for distance in range(1, relay.farthest + 1):
        tokens, answers = relay.draw(np.full(training.asked, distance), source)
        logits = model(torch.from_numpy(tokens))[:, -1, : relay.values]
        found[distance - 1] = (logits.argmax(-1).numpy() == answers).mean()
    return found


def by_band(measured: Mapping[str, Any], bands: int = 5) -> list[float]:
    """Mean accuracy in so many bands of distance, the nearest first."""
    return [float(part.mean()) for part in np.array_split(np.asarray(measured["accuracy"]), bands)]
