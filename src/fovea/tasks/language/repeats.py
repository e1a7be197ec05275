"""Small models of bytes beside each other, and how well they say again what stands further back than a window.

A byte is a *repeat* where it and the bytes before it stood there before, last so far back that the window in question
no longer shows them (the associative recall of text; arXiv 2402.18668, section 3, and 2312.04927).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import log
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional as F

from fovea.models.language import LanguageModel
from fovea.models.language_config import LanguageConfig, Layer

BYTES = 256


@dataclass(frozen=True)
class RepeatTraining:
    """How models are taught and measured.

    Attributes:
        dim, hidden: channels, and those inside the MLP of the first model; the others have as many parameters as it.
        heads, look_back: of attention; earlier tokens that a window shows.
        steps, batch, length: sequences of so many bytes a step, from random places.
        rate, warmup, weight_decay: of AdamW; a rise over ``warmup`` steps, then half a cosine to a tenth.
        held_out: share of the text, its end, that is measured on.
        measured: sequences of it, spread evenly.
        context: bytes before a byte that make it a repeat.
        seed: of weights and places.
    """

    dim: int = 128
    hidden: int = 256
    heads: int = 4
    look_back: int = 32
    steps: int = 400
    batch: int = 8
    length: int = 512
    rate: float = 3e-3
    warmup: int = 30
    weight_decay: float = 0.1
    held_out: float = 0.05
    measured: int = 64
    context: int = 5
    seed: int = 0


def rivals(training: RepeatTraining) -> dict[str, LanguageConfig]:
    """Eight layers of Based, of full attention, and of convolutions and windows alone, of equal parameters."""
    convolution = Layer("gated-convolution", {"expand": 2})
    linear = Layer("taylor", {"heads": training.heads})
    window = Layer("window", {"heads": training.heads, "window": training.look_back + 1})
    layers = {
        "based": (convolution, linear, window, convolution) * 2,
        "attention": (Layer("full", {"heads": training.heads}),) * 8,
        "convolution and window": (convolution, convolution, window, convolution) * 2,
    }
    first = LanguageConfig(BYTES, training.dim, layers["based"], hidden=training.hidden)
    return {name: alike(replace(first, layers=some), parameters(first)) for name, some in layers.items()}


def parameters(config: LanguageConfig) -> int:
    """Numbers that a model of this configuration learns."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in LanguageModel(config).parameters())


def alike(config: LanguageConfig, wanted: int) -> LanguageConfig:
    """The configuration with as many hidden channels as bring it nearest to so many parameters."""
    one, two = (parameters(replace(config, hidden=hidden)) for hidden in (1, 2))
    return replace(config, hidden=max(1, 1 + round((wanted - one) / (two - one))))


def repeats(rows: Int64[Tensor, "rows length"], context: int, beyond: int) -> Bool[Tensor, "rows length"]:
    """Whether a token and the ``context`` tokens before it stood in its row before, last more than ``beyond`` back."""
    found = torch.zeros_like(rows, dtype=torch.bool)
    for row, tokens in enumerate(rows.tolist()):
        last: dict[tuple[int, ...], int] = {}
        for place in range(context, len(tokens)):
            words = tuple(tokens[place - context : place + 1])
            found[row, place] = words in last and place - last[words] > beyond
            last[words] = place
    return found


def measure(
    config: LanguageConfig, training: RepeatTraining, text: bytes, *, tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Train on a text, and measure on its end.

    Returns a dictionary that JSON can hold: ``bits_per_byte``, of ``all`` bytes and of ``repeats``; ``share`` of the
    bytes that are repeats; ``parameters``; ``state_bytes`` (float32) after one sequence.

    Raises:
        ValueError: when the text is too short to hold a sequence on either side of the cut.
    """
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    cut = round(len(tokens) * (1 - training.held_out))
    taught, held_out = tokens[:cut], tokens[cut:]
    if min(len(taught), len(held_out)) <= training.length:
        raise ValueError(f"text has {len(text)} bytes; both sides of the cut need more than {training.length}")
    model = train(config, training, taught, tell)
    starts = torch.linspace(0, len(held_out) - training.length - 1, training.measured).long()
    rows = held_out[starts[:, None] + torch.arange(training.length + 1)]
    bits, again = foretold(model, rows), repeats(rows, training.context, training.look_back)[:, 1:]
    return {
        "bits_per_byte": {"all": float(bits.mean()), "repeats": float(bits[again].mean()) if again.any() else None},
        "share": float(again.float().mean()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "state_bytes": 4 * model.state_size(training.length),
    }


def train(
    config: LanguageConfig, training: RepeatTraining, text: Tensor, tell: Callable[[str], None] | None = None
) -> LanguageModel:
    """A model that has learned from the text; pure in the seed."""
    torch.manual_seed(training.seed)
    model = LanguageModel(config)
    draw = torch.Generator().manual_seed(training.seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=training.rate, betas=(0.9, 0.95), weight_decay=training.weight_decay
    )
    rise = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / max(training.warmup, 1), total_iters=training.warmup)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, max(training.steps - training.warmup, 1), eta_min=training.rate / 10
    )
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [rise, fall], [training.warmup])
    for step in range(training.steps):
        starts = torch.randint(len(text) - training.length, (training.batch, 1), generator=draw)
        rows = text[starts + torch.arange(training.length + 1)]
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if tell is not None and step % 50 == 49:
            tell(f"step {step + 1}: {loss.item() / log(2):.3f} bits a byte")
    return model.eval()


@torch.no_grad()
def foretold(model: LanguageModel, rows: Int64[Tensor, "rows length"], size: int = 8) -> Tensor:
    """``[rows, length - 1]``: the bits that each token but the first costs."""
    nats = [
        F.cross_entropy(model(some[:, :-1]).transpose(1, 2), some[:, 1:], reduction="none") for some in rows.split(size)
    ]
    return torch.cat(nats) / log(2)


def compare(
    training: RepeatTraining, text: bytes, *, tell: Callable[[str], None] | None = None
) -> Mapping[str, dict[str, Any]]:
    """:func:`measure` for each of the :func:`rivals`."""
    return {name: measure(config, training, text, tell=tell) for name, config in rivals(training).items()}
