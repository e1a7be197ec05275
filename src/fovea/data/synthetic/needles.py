"""Needles in a haystack: values behind markers, hidden in noise, one of which is asked for at the end.

The form of RULER's retrieval tasks (arXiv 2404.06654) in tokens: noise, needles (a marker and a value behind it) at
given or random distances, and last the marker that is asked. Values are tokens of the noise, so that nothing but the
marker before it tells a value from it. :func:`passkey` is the same in words, for models that read text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

FILLER = ("The grass is green. ", "The sky is blue. ", "The sun is yellow. ", "Here we go. ", "There and back again. ")


class Haystacks(NamedTuple):
    """Sequences and what is asked in them.

    Attributes:
        tokens: ``[examples, length]``; the last is the marker that is asked.
        answers: ``[examples]``: the value behind it.
        distance: ``[examples]``: tokens from that value to the end.
    """

    tokens: Integers
    answers: Integers
    distance: Integers


@dataclass(frozen=True)
class Needles:
    """Sequences of one kind.

    Attributes:
        length: tokens of a sequence, the question included.
        vocabulary: tokens; the first ``markers`` are markers, the others noise and values.
        markers: different markers.
        needles: needles a sequence, each with a marker of its own; one is asked.

    >>> Needles(length=8).draw(np.array([1, 5]), np.random.default_rng(0)).distance
    array([1, 5])
    """

    length: int
    vocabulary: int = 64
    markers: int = 4
    needles: int = 1

    def __post_init__(self) -> None:
        if self.markers < 1 or self.vocabulary < self.markers + 2:
            raise ValueError(f"{self}: there must be a marker, and two tokens beside the markers")
        if not 1 <= self.needles <= self.markers:
            raise ValueError(f"{self}: needles must be 1 to markers={self.markers}")
        if self.length < 2 * self.needles + 1:
            raise ValueError(f"{self}: length must be at least {2 * self.needles + 1}")

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / (self.vocabulary - self.markers)

    @property
    def farthest(self) -> int:
        """The largest distance of a value from the question."""
        return self.length - 2

    def uniform(self, examples: int, source: np.random.Generator) -> Haystacks:
        """Sequences whose needle stands anywhere."""
        return self.draw(source.integers(1, self.farthest + 1, examples), source)

    def draw(self, distance: Integers, source: np.random.Generator) -> Haystacks:
        """A sequence for each ``distance`` (1 to ``farthest``) of the asked value from the question."""
        distance = np.asarray(distance, dtype=np.int64)
        if distance.size and not 1 <= distance.min() <= distance.max() <= self.farthest:
            raise ValueError(f"distance from {distance.min()} to {distance.max()}; it must be 1 to {self.farthest}")
        examples = len(distance)
        tokens = source.integers(self.markers, self.vocabulary, (examples, self.length))
        values = source.integers(self.markers, self.vocabulary, (examples, self.needles))
        for row in range(examples):
            markers = source.permutation(self.markers)[: self.needles]
            places = self._places(int(distance[row]), source)
            tokens[row, places - 1], tokens[row, places] = markers, values[row]
            tokens[row, -1] = markers[0]
        return Haystacks(tokens, values[:, 0], distance)

    def _places(self, distance: int, source: np.random.Generator) -> Integers:
        """Where the values stand, the asked one first: no two needles touch each other's tokens."""
        places = [self.length - 1 - distance]
        free = np.ones(self.length, dtype=np.bool_)
        free[0] = free[-1] = False
        while True:
            free[max(0, places[-1] - 1) : places[-1] + 2] = False
            if len(places) == self.needles:
                return np.array(places)
            if not free.any():
                raise ValueError(f"{self}: there is no room for {self.needles} needles with one at distance {distance}")
            places.append(int(source.choice(np.flatnonzero(free))))


def passkey(length: int, depth: float, source: np.random.Generator) -> tuple[str, str]:
    """A text of about ``length`` characters with a five-digit key at ``depth`` (0 the beginning, 1 the end), and a
    question at its end; and the key. ``ValueError`` where the text has no room for both."""
    if not 0 <= depth <= 1:
        raise ValueError(f"depth={depth}; it must be 0 to 1")
    key = str(source.integers(10_000, 100_000))
    needle, question = f"The pass key is {key}. Remember it. ", "What is the pass key? The pass key is "
    room = length - len(needle) - len(question)
    if room < 0:
        raise ValueError(f"length={length}; needle and question alone take {length - room} characters")
    sentences = [FILLER[place % len(FILLER)] for place in range(room // min(map(len, FILLER)) + 1)]
    ends = np.cumsum([len(sentence) for sentence in sentences])
    kept = sentences[: int(np.searchsorted(ends, room, side="right"))]
    place = round(depth * len(kept))
    return "".join([*kept[:place], needle, *kept[place:], question]), key
