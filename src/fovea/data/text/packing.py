"""Sequences of equal length out of a corpus, in an order that depends on nothing but the seed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fovea.data.text.corpus import Corpus
from fovea.errors import UserError

IGNORED = -100
"""The target of a token that is not asked for its next one."""


class Packed:
    """The corpus as one long row of documents, cut into sequences of ``length`` tokens.

    ``sequence(i)`` is the ``i``-th of them in the corpus; ``drawn(n, seed)`` the ``n``-th that training draws: epoch
    after epoch, each in an order of its own, so that a training can be taken up at any ``n``. Every epoch cuts at other
    places.

    Args:
        begin, stop: only these tokens of the corpus; all of them unless given.

    Raises ``UserError`` where they are not longer than a sequence.
    """

    def __init__(self, corpus: Corpus, length: int, begin: int = 0, stop: int | None = None) -> None:
        stop = len(corpus) if stop is None else stop
        if length < 1 or length >= stop - begin:
            raise UserError(
                f"length={length}; {corpus.folder} has {stop - begin} tokens for this, so it must be 1 to "
                f"{max(1, stop - begin - 1)}"
            )
        self.corpus, self.length, self.begin, self.stop = corpus, length, begin, stop

    def __len__(self) -> int:
        """Whole sequences, each with a next token for its last one."""
        return (self.stop - self.begin - 1) // self.length

    def sequence(self, number: int) -> dict[str, Tensor]:
        """``tokens``, ``targets`` (the next token; ``IGNORED`` after the end of a document) and ``documents``, numbered
        from 0 on in the sequence; each ``[length]``. The last sequence of all may be shorter."""
        return self._at(number * self.length)

    def drawn(self, number: int, seed: int) -> dict[str, Tensor]:
        """The same for the ``number``-th sequence of a training."""
        epoch, place = divmod(number, max(1, len(self) - 1))
        order, offset = _order(len(self), self.length, self.stop - self.begin, seed, epoch)
        return self._at(offset + int(order[place]) * self.length)

    def _at(self, place: int) -> dict[str, Tensor]:
        begin = self.begin + place
        count = min(self.length + 1, self.stop - begin)
        tokens, documents = self.corpus.tokens(begin, count), self.corpus.documents(begin, count)
        targets = np.where(documents[1:] == documents[:-1], tokens[1:], IGNORED)
        kept = documents[: len(targets)] - documents[0]
        return {
            "tokens": torch.from_numpy(tokens[: len(targets)]),
            "targets": torch.from_numpy(targets),
            "documents": torch.from_numpy(kept),
        }


@lru_cache(maxsize=4)
def _order(sequences: int, length: int, tokens: int, seed: int, epoch: int) -> tuple[NDArray[np.int64], int]:
    """The order of an epoch's sequences, and the token at which the first of them begins."""
    random = np.random.default_rng((seed, epoch))
    if sequences == 1:
        return np.zeros(1, np.int64), int(random.integers(0, tokens - length))
    return random.permutation(sequences - 1), int(random.integers(0, length))
