"""What small language models are taught in the comparisons of the systems, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fovea.patterns.search import SpanSearch


@dataclass(frozen=True)
class RecallTraining:
    """How a model is taught and examined.

    Attributes:
        dim: channels.
        vocabulary: tokens, half of them values.
        taught: ``(length, pairs)`` of the sequences to learn from, in equal numbers.
        asked: ``(length, pairs)`` of the examinations.
        questions: sequences of each examination.
        fillers: random tokens in unused places, which may be keys; else a token that means nothing.
        steps, batch: of training, each sequence seen once.
        rate, weight_decay: of AdamW with a one-cycle rate that peaks at ``rate``.
        seed: of data and weights.
    """

    dim: int = 64
    vocabulary: int = 256
    taught: tuple[tuple[int, int], ...] = ((64, 4), (64, 8))
    asked: tuple[tuple[int, int], ...] = ((64, 4), (64, 8), (128, 16))
    questions: int = 500
    fillers: bool = False
    steps: int = 1500
    batch: int = 64
    rate: float = 5e-3
    weight_decay: float = 0.1
    seed: int = 0


HARDER = RecallTraining(
    taught=((64, 4), (64, 8), (128, 16), (256, 32)), asked=((64, 8), (128, 16), (256, 32), (256, 64)), vocabulary=512
)
"""With as many pairs as tell a memory of 153 features from attention."""


@dataclass(frozen=True)
class RelayTraining:
    """How a model is taught.

    Attributes:
        dim, hidden: channels of tokens and inside the MLP.
        steps, batch, rate: of Adam with a one-cycle rate that peaks at ``rate``.
        start, growth: distances are drawn from 1 up to a bound, which rises from ``start`` to the farthest over this
            share of the steps; without it, far values may never be learned.
        asked: sequences a distance in the examination.
    """

    dim: int = 48
    hidden: int = 96
    steps: int = 160
    batch: int = 64
    rate: float = 6e-3
    start: int = 8
    growth: float = 0.6
    asked: int = 32
    seed: int = 0


@dataclass(frozen=True)
class NeedleTraining:
    """How a network is taught and asked.

    Attributes:
        length: tokens of the longest lessons.
        needles: in each; one is asked.
        dim, heads: channels; heads of the attention.
        sw_index, num_spans, backward_factor, forward_factor: of the search; ``sw_index`` sets the window of all arms.
        steps, batch, rate, search_rate: of AdamW; the search's own map has a rate of its own. Warm-up over the first
            twentieth, then down to nothing along a cosine.
        start: tokens of the first lessons. The length doubles when a running mean of the accuracy passes ``enough``.
        asked: sequences a band of distances in the examination.
        seed: of weights and lessons.
    """

    length: int = 512
    needles: int = 1
    dim: int = 64
    heads: int = 2
    sw_index: int = 3
    num_spans: int = 2
    backward_factor: float = 2.0
    forward_factor: float = 0.0
    steps: int = 1500
    batch: int = 16
    rate: float = 3e-3
    search_rate: float = 3e-3
    start: int = 16
    enough: float = 0.95
    asked: int = 128
    seed: int = 0

    @property
    def search(self) -> SpanSearch:
        from fovea.patterns.search import SpanSearch

        return SpanSearch(self.sw_index, self.num_spans, self.backward_factor, self.forward_factor)
