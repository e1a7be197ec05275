"""Multi-query associative recall (MQAR; arXiv 2312.04927, section 3 and appendix; arXiv 2402.18668, figure 2).

A sequence begins with pairs of a key and its value; later the keys come again, in any order, and at each the model must
say its value. The generator is that of HazyResearch/zoology bit for bit, from the same streams of random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

IGNORED = -100
"""The label where nothing is asked."""


@dataclass(frozen=True)
class Segment:
    """Sequences of one difficulty.

    Attributes:
        examples: how many.
        length: tokens of a sequence; even.
        pairs: of keys and values, K; ``4 K`` is at most ``length``.
    """

    examples: int
    length: int
    pairs: int

    def __post_init__(self) -> None:
        if self.length % 2 or self.length < 2:
            raise ValueError(f"length={self.length}; it must be even and above 0")
        if self.examples < 1:
            raise ValueError(f"examples={self.examples}; it must be at least 1")
        if not 1 <= self.pairs <= self.length // 4:
            raise ValueError(
                f"pairs={self.pairs}; pairs and queries take 4 tokens each, so with length={self.length} "
                f"it must be 1 to {self.length // 4}"
            )


@dataclass(frozen=True, eq=False)
class Recall:
    """Sequences and what is asked in them.

    Attributes:
        inputs: ``[examples, length]`` token ids.
        labels: ``[examples, length]``: the value where a key is asked (at that very place), elsewhere ``IGNORED``.
    """

    inputs: Int64[Tensor, "examples length"]
    labels: Int64[Tensor, "examples length"]


PAPER_TRAIN = (
    Segment(100_000, 64, 4),
    *(Segment(20_000, length, pairs) for length, pairs in ((128, 8), (256, 16), (256, 32), (256, 64))),
)
PAPER_TEST = tuple(
    Segment(1_000, length, pairs)
    for length, pairs in ((64, 4), (64, 8), (64, 16), (128, 32), (256, 64), (512, 128), (1024, 256))
)
PAPER_VOCABULARY = 8192
PAPER_SEED = 123


def generate(
    segment: Segment,
    vocabulary: int,
    seed: int,
    *,
    power: float = 0.01,
    filler_seed: int | None = None,
) -> Recall:
    """The sequences of one segment.

    Keys are from ``1 .. vocabulary/2 - 1`` and values from ``vocabulary/2 .. vocabulary - 1``, without repetition in a
    sequence. The slots at which keys are asked are drawn with probability proportional to ``slot ** (power - 1)``: the
    smaller ``power``, the sooner after the pairs.

    Args:
        segment: how many, how long, how hard.
        vocabulary: token ids there are; more than ``length``.
        seed: of pairs and places (NumPy's legacy generator).
        power: a.
        filler_seed: of the tokens that fill unused places (PyTorch's generator), uniform over the vocabulary, so that
            a filler may be a key; none leaves these places 0.

    Raises:
        ValueError: when ``vocabulary`` is at most ``length``.
    """
    if vocabulary <= segment.length:
        raise ValueError(f"vocabulary={vocabulary}; it must be above length={segment.length}")
    draw = np.random.RandomState(seed)  # the stream of the published data
    examples, pairs, context = range(segment.examples), segment.pairs, 2 * segment.pairs
    known, values = np.arange(1, vocabulary // 2), np.arange(vocabulary // 2, vocabulary)
    slots = np.arange((segment.length - context) // 2)
    chances = power * (slots + 1.0) ** (power - 1)
    chances /= chances.sum()

    key = np.stack([draw.choice(known, size=pairs, replace=False) for _ in examples])
    value = np.stack([draw.choice(values, size=pairs, replace=False) for _ in examples])
    asked = context + 2 * np.stack([draw.choice(slots, size=pairs, replace=False, p=chances) for _ in examples])

    inputs = np.zeros((segment.examples, segment.length), np.int64)
    inputs[:, 0:context:2], inputs[:, 1:context:2] = key, value
    np.put_along_axis(inputs, asked, key, 1)
    labels = np.full_like(inputs, IGNORED)
    np.put_along_axis(labels, asked, value, 1)
    tokens = torch.from_numpy(inputs)
    if filler_seed is not None:
        fillers = torch.randint(vocabulary, tokens.shape, generator=torch.Generator().manual_seed(filler_seed))
        tokens = torch.where(tokens == 0, fillers, tokens)
    return Recall(tokens, torch.from_numpy(labels))


def segment_seeds(train: int, test: int, seed: int = PAPER_SEED) -> tuple[list[int], list[int]]:
    """Seeds of so many training segments, all below 2^31, and of so many test segments, all from 2^31."""
    draw = np.random.RandomState(seed)  # the stream of the published data
    half = 2**31
    return (
        draw.randint(0, half, size=train, dtype=np.int64).tolist(),
        draw.randint(half, 2 * half, size=test, dtype=np.int64).tolist(),
    )


def batches(
    segments: Sequence[Recall], size: int, *, shuffle: bool = True, seed: int = 0
) -> Iterator[tuple[Int64[Tensor, "batch length"], Int64[Tensor, "batch length"]]]:
    """Batches of one epoch; none mixes two segments, since their lengths differ.

    Args:
        segments: the sequences.
        size: of a batch; the last of a segment may be smaller.
        shuffle: sequences within their segments, and all batches. Without it the segments come in their order, short
            and easy ones first, as the published loader gives them in every epoch.
        seed: of the order.
    """
    if size < 1:
        raise ValueError(f"size={size}; it must be at least 1")
    draw = torch.Generator().manual_seed(seed)
    made = []
    for place, segment in enumerate(segments):
        examples = len(segment.inputs)
        order = torch.randperm(examples, generator=draw) if shuffle else torch.arange(examples)
        made += [(place, rows) for rows in order.split(size)]
    if shuffle:
        made = [made[index] for index in torch.randperm(len(made), generator=draw)]
    for place, rows in made:
        yield segments[place].inputs[rows], segments[place].labels[rows]
