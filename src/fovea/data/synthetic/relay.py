"""A value hidden in noise, asked for at the end: whether a network passes it on from where it stands.

The sequence is noise, but for a marker with a value behind it, and a query as its last token; the answer is the value.
Nothing else tells of the value, so it is found only if attention reaches it, in one step or through other tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Relay:
    """Sequences of one kind.

    Attributes:
        length: tokens of a sequence, the query included.
        values: different values; tokens ``0 .. values - 1``. Chance is ``1 / values``.
        noise: different tokens of noise; they follow marker (``values``) and query (``values + 1``).
    """

    length: int
    values: int = 8
    noise: int = 8

    def __post_init__(self) -> None:
        if self.length < 3 or self.values < 2 or self.noise < 1:
            raise ValueError(f"{self}: length must be at least 3, values 2, noise 1")

    @property
    def vocabulary(self) -> int:
        return self.values + 2 + self.noise

    @property
    def farthest(self) -> int:
        """The largest distance of the value from the query, in tokens."""
        return self.length - 2

    def draw(self, distance: Integers, source: np.random.Generator) -> tuple[Integers, Integers]:
        """A sequence for each ``distance`` (1 to ``farthest``) of the value from the query: ``tokens [n, length]`` and
        the answers ``[n]``."""
        distance = np.asarray(distance)
        if distance.size and not 1 <= distance.min() <= distance.max() <= self.farthest:
            raise ValueError(f"distance from {distance.min()} to {distance.max()}; it must be 1 to {self.farthest}")
        rows = np.arange(len(distance))
        tokens = source.integers(self.values + 2, self.vocabulary, (len(distance), self.length))
        answers = source.integers(0, self.values, len(distance))
        place = self.length - 1 - distance
        tokens[rows, place] = answers
        tokens[rows, place - 1] = self.values
        tokens[:, -1] = self.values + 1
        return tokens, answers
