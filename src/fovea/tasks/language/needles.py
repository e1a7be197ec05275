"""Needles by distance: whether a search for spans learns to find what full attention finds (arXiv 2601.18401).

One network, a short convolution under one attention layer, is taught to say the value behind a marker that stands
anywhere in noise: with Superlinear attention and with what it is compared to, which is full attention, the window
alone, a search that is never taught, and a search of keys that tell of no token but their own. All have the same
parameters but for what an arm takes away.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fovea.data.synthetic.needles import Needles
from fovea.kernels.cache import folder
from fovea.kernels.span_search import find
from fovea.nn.gated_convolution import BaseConvolution
from fovea.nn.linear import Linear
from fovea.nn.span_search import SuperlinearAttention
from fovea.tasks.language.lessons import NeedleTraining
from fovea.tasks.run import replacing

Arm = Literal["superlinear", "full", "window", "frozen search", "no accumulator"]
ARMS: tuple[Arm, ...] = get_args(Arm)


class Finder(nn.Module):
    """Embedding, a short gated convolution, one attention layer that answers the last token, logits.

    Shapes: ``[batch, tokens]`` numbers of tokens ``-> [batch, vocabulary]``.
    """

    def __init__(self, arm: Arm, vocabulary: int, training: NeedleTraining) -> None:
        super().__init__()
        self.arm, self.window = arm, training.search.window
        self.embedding = nn.Embedding(vocabulary, training.dim)
        self.convolution_norm = nn.RMSNorm(training.dim)
        self.convolution = BaseConvolution(training.dim)
        self.attention_norm = nn.RMSNorm(training.dim)
        everything = training.length * 64
        self.attention = SuperlinearAttention(
            training.dim,
            training.heads,
            sw_index=everything if arm in ("full", "window") else training.sw_index,
            num_spans=training.num_spans,
            backward_factor=training.backward_factor,
            forward_factor=training.forward_factor,
            accumulator="none" if arm == "no accumulator" else "linear",
        )
        self.norm = nn.RMSNorm(training.dim)
        self.head = Linear(training.dim, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, Linear):  # narrow layers need larger weights than wide ones
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if arm == "frozen search":
            self.attention.search_query.requires_grad_(False)
        else:
            self.attention.start_search()

    def mixed(self, tokens: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch seen dim"]:
        """What the attention layer reads."""
        x = self.embedding(tokens)
        x = self.convolution(self.convolution_norm(x))
        return x[:, -self.window :] if self.arm == "window" else x

    def forward(self, tokens: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch vocabulary"]:
        x = self.mixed(tokens)
        x = x[:, -1] + self.attention(self.attention_norm(x), last=1)[:, 0]
        return self.head(self.norm(x))

    @torch.no_grad()
    def spans(self, tokens: Int64[Tensor, "batch tokens"]) -> tuple[Tensor, Tensor, Tensor]:
        """First and last key of the spans that the last token chose, and their shares: ``[batch, heads, spans]``."""
        attention = self.attention
        x = self.attention_norm(self.mixed(tokens))
        search_query, _, key, _ = attention._projected(x, 1)
        scored = key if attention.accumulator is None else attention.accumulator(key, x)[0]
        found = find(search_query, scored, attention.search, x.shape[1] - 1, None)
        gate = torch.where(found.anchor >= 0, found.score, -1e9).softmax(-1)
        return found.start[:, 0], found.end[:, 0], gate[:, 0]


def train(arm: Arm, training: NeedleTraining, tell: Callable[[str], None] | None = None) -> tuple[Finder, int]:
    """A network that has learned what it can, and the length of its last lessons; pure in the seed."""
    torch.manual_seed(training.seed)
    source = np.random.default_rng(training.seed)
    length = min(training.start, training.length)
    kind = Needles(length, needles=training.needles)
    network = Finder(arm, kind.vocabulary, training)
    search = set(network.attention.search_query.parameters())
    others = [parameter for parameter in network.parameters() if parameter not in search]
    groups = [{"params": others, "lr": training.rate}, {"params": list(search), "lr": training.search_rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    warm = max(1, training.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / warm) * 0.5 * (1 + np.cos(np.pi * step / training.steps))
    )
    right = 0.0
    for step in range(training.steps):
        lesson = kind.uniform(training.batch, source)
        answers = torch.from_numpy(lesson.answers)
        logits = network(torch.from_numpy(lesson.tokens))
        loss = nn.functional.cross_entropy(logits, answers)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        right = 0.95 * right + 0.05 * float((logits.argmax(-1) == answers).float().mean())
        if right > training.enough and length < training.length:
            length, right = min(2 * length, training.length), 0.0
            kind = replace(kind, length=length)
        if tell is not None and step % 100 == 99:
            tell(f"{arm}: step {step + 1}, {length} tokens, loss {loss.item():.3f}, accuracy {right:.3f}")
    return network.eval(), length


@torch.no_grad()
def examine(network: Finder, length: int, training: NeedleTraining, bands: int = 8) -> list[float]:
    """Accuracy by distance: ``bands`` bands of equal width, the nearest first; sequences that no lesson had."""
    kind = Needles(length, needles=training.needles)
    source = np.random.default_rng((training.seed, length))
    edges = np.linspace(1, kind.farthest + 1, bands + 1).astype(int)
    found = []
    for low, high in pairwise(edges):
        right = 0
        for part in np.array_split(source.integers(low, high, training.asked), max(1, training.asked * length >> 16)):
            asked = kind.draw(part, source)
            right += int((network(torch.from_numpy(asked.tokens)).argmax(-1).numpy() == asked.answers).sum())
        found.append(right / training.asked)
    return found


@torch.no_grad()
def covered(network: Finder, length: int, training: NeedleTraining) -> float:
    """How often a needle outside the window lies in a span that some head chose."""
    kind = Needles(length, needles=training.needles)
    source = np.random.default_rng((training.seed, length, 1))
    distance = source.integers(network.window + 1, kind.farthest + 1, training.asked)
    asked = kind.draw(distance, source)
    start, end, _ = network.spans(torch.from_numpy(asked.tokens))
    place = torch.from_numpy(length - 1 - distance)[:, None, None]
    return float(((start <= place) & (place <= end)).flatten(1).any(1).float().mean())


@torch.no_grad()
def chosen(network: Finder, training: NeedleTraining, count: int = 8) -> list[dict[str, Any]]:
    """For ``count`` needles, the nearest first: its ``place``, and of each head the ``spans`` that the last token
    chose, as ``[first key, last key, share]``."""
    kind = Needles(training.length, needles=training.needles)
    source = np.random.default_rng((training.seed, training.length, 2))
    distance = np.linspace(network.window + 1, kind.farthest, count).astype(int)
    asked = kind.draw(distance, source)
    start, end, share = network.spans(torch.from_numpy(asked.tokens))
    spans = torch.stack([start.float(), end.float(), share], -1)
    return [
        {
            "place": int(training.length - 1 - far),
            "spans": [[[int(a), int(b), round(float(s), 4)] for a, b, s in head] for head in row],
        }
        for far, row in zip(distance, spans.tolist(), strict=True)
    ]


def measure(
    training: NeedleTraining | None = None,
    *,
    arms: Sequence[Arm] = ARMS,
    longer: Sequence[int] = (),
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Teach every arm, and ask it for needles at all distances, also in ``longer`` sequences than it was taught.

    Returns a dictionary that JSON can hold. For each arm: by length, ``accuracy`` by band of distance (the nearest
    first) and its mean over ``outside`` of the window; the ``taught`` length; ``parameters`` that learn; where the arm
    searches, ``covered``, how often the chosen spans hold the needle, and :func:`chosen`. Beside them ``chance``,
    ``window`` and ``keys``, the most keys that the search reads for the last token.
    """
    training = NeedleTraining() if training is None else training
    search = training.search
    kind = Needles(training.length, needles=training.needles)
    return {
        "training": asdict(training),
        "chance": kind.chance,
        "window": search.window,
        "keys": {str(length): search.visits(length) for length in (training.length, *longer)},
        "arms": {arm: _measure_arm(arm, training, longer, tell) for arm in arms},
    }


def _measure_arm(
    arm: Arm, training: NeedleTraining, longer: Sequence[int], tell: Callable[[str], None] | None
) -> dict[str, Any]:
    network, taught = train(arm, training, tell)
    found: dict[str, Any] = {
        "taught": taught,
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "lengths": {},
    }
    for length in (training.length, *longer):
        accuracy = examine(network, length, training)
        outside = accuracy[-(-training.search.window * len(accuracy) // length) :]
        at = {"accuracy": accuracy, "outside": float(np.mean(outside))}
        if arm not in ("full", "window"):
            at["covered"] = covered(network, length, training)
        found["lengths"][str(length)] = at
    if arm not in ("full", "window"):
        found["chosen"] = chosen(network, training)
    return found


CLAIM = NeedleTraining(steps=1600, batch=32, rate=5e-3, search_rate=5e-3, enough=0.85)
SEEDS = (0, 1, 2)
LONGER = (1024, 2048)


def by_distance(*, quiet: bool = False) -> dict[str, Any]:
    """All arms with three seeds, asked at all distances and in longer sequences than they were taught.

    Every arm and seed is kept in the user's cache when it is done, and not trained again.
    """
    done: dict[str, dict[str, Any]] = {}
    for seed in SEEDS:
        for arm in ARMS:
            training = replace(CLAIM, seed=seed)
            words = repr((arm, training, LONGER))
            kept = folder() / "claims" / f"needles-{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"
            if not kept.is_file():
                found = measure(training, arms=(arm,), longer=LONGER, tell=None if quiet else _say)
                kept.parent.mkdir(parents=True, exist_ok=True)
                with replacing(kept) as temporary:
                    temporary.write_text(json.dumps(found))
            done[f"{arm}, seed {seed}"] = json.loads(kept.read_text())
    return _summary(done)


def _summary(done: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, with their standard deviations."""
    first = next(iter(done.values()))
    result: dict[str, Any] = {name: first[name] for name in ("chance", "window", "keys")}
    for arm in ARMS:
        seeds = [found["arms"][arm] for found in done.values() if arm in found["arms"]]
        for length in seeds[0]["lengths"]:
            values = [found["lengths"][length]["outside"] for found in seeds]
            bands = np.mean([found["lengths"][length]["accuracy"] for found in seeds], 0)
            result[f"{arm}, {length} tokens"] = {
                "outside the window": float(np.mean(values)),
                "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "by distance": [round(float(band), 4) for band in bands],
                "covered": _mean([found["lengths"][length].get("covered") for found in seeds]),
            }
        result[f"{arm}, taught"] = [found["taught"] for found in seeds]
    return result


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
