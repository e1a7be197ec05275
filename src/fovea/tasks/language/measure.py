"""How well a model foretells text: bits a byte, which tokenizers do not change, and perplexity by token."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from fovea.data.text.packing import IGNORED, Packed
from fovea.data.text.tokenizer import Tokenizer

ROWS = 4
"""Sequences that are read at a time."""


@torch.no_grad()
def foretold(
    network: nn.Module,
    held_out: Packed,
    tokenizer: Tokenizer,
    *,
    most: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """``bits_per_byte``, ``perplexity`` of a token and ``nats`` a token, over whole sequences, spread evenly where
    there are more than ``most``. Each sequence is read from its beginning, without what stood before it.

    The end of a document costs bits like any token, and counts as no byte.
    """
    device = next(network.parameters()).device
    count = max(1, len(held_out))
    chosen = range(count) if most is None or most >= count else [place * count // most for place in range(most)]
    nats, tokens, size = 0.0, 0, 0
    for begin in range(0, len(chosen), ROWS):
        rows = [held_out.sequence(number) for number in chosen[begin : begin + ROWS]]
        inputs, targets, documents = (
            torch.stack([row[name] for row in rows]).to(device) for name in ("tokens", "targets", "documents")
        )
        logits = network(inputs, documents if bool((documents != 0).any()) else None)
        nats += float(
            F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        )
        for row in targets.cpu().numpy():
            kept = row[row != IGNORED]
            tokens += len(kept)
            size += tokenizer.size(kept)
        if progress is not None:
            progress(len(rows))
    return {
        "bits_per_byte": nats / math.log(2) / max(1, size),
        "perplexity": math.exp(min(nats / max(1, tokens), 700.0)),
        "nats": nats / max(1, tokens),
    }
