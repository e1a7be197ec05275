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
    """

    def __init__(self, corpus: Corpus, length: int) -> None:
        if length < 1 or length >= len(corpus):
            raise UserError(
                f"length={length}; {corpus.folder} has {len(corpus)} tokens, so it must be 1 to {len(corpus) - 1}"
            )
        self.corpus, self.length = corpus, length

    def __len__(self) -> int:
        """Whole sequences, each with a next token for its last one."""
        return (len(self.corpus) - 1) // self.length

    def sequence(self, number: int) -> dict[str, Tensor]:
        """``tokens``, ``targets`` (the next token; ``IGNORED`` after the end of a document) and ``documents``, numbered
        from 0 on in the sequence; each ``[length]``. The last sequence of all may be shorter."""
        return self._at(number * self.length)

    def drawn(self, number: int, seed: int) -> dict[str, Tensor]:
        """The same for the ``number``-th sequence of a training."""
        epoch, place = divmod(number, max(1, len(self) - 1))
        order, offset = _order(len(self), self.length, len(self.corpus), seed, epoch)
        return self._at(offset + int(order[place]) * self.length)

    def _at(self, begin: int) -> dict[str, Tensor]:
        tokens = self.corpus.tokens(begin, self.length + 1)
        documents = self.corpus.documents(begin, self.length + 1)
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
