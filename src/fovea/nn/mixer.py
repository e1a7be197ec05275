"""What a block of a language model mixes its tokens with, and what that keeps of the tokens it has read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


@dataclass
class State:
    """What a mixer keeps of the tokens read so far, for each row of a batch.

    Attributes:
        position: ``[batch]``: tokens that each row has read; rows may differ.
        tensors: everything else by name, each with the batch as its first axis. Their sizes may grow with what is read
            only where the method needs it (full attention).
    """

    position: Int64[Tensor, " batch"]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        return len(self.position)

    @property
    def bytes(self) -> int:
        """Bytes held, for all rows."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.position, *self.tensors.values()))

    def reorder(self, rows: Int64[Tensor, " rows"]) -> None:
        """Row ``i`` becomes what row ``rows[i]`` was (beam search, finished rows); the batch may change its size."""
        self.position = self.position.index_select(0, rows)
        self.tensors = {name: tensor.index_select(0, rows) for name, tensor in self.tensors.items()}


class Mixer(nn.Module, ABC):
    """A causal layer from tokens to tokens that can also be run token by token.

    ``forward`` of a sequence, ``prefill`` of it in any pieces, and a ``step`` for each of its tokens give the same
    outputs. Reading a state is for inference: no gradient need flow through it.

    Shapes: ``[batch, tokens, dim] -> [batch, tokens, dim]``.
    """

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch tokens dim"], documents: Int64[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """Whole sequences. ``documents`` numbers the documents packed into a row (rising along it): no token sees
        across a border."""

    @abstractmethod
    def start(self, batch: int, like: Tensor) -> State:
        """The state before the first token, on the device and in the dtype of ``like``."""

    @abstractmethod
    def prefill(
        self,
        x: Float[Tensor, "batch tokens dim"],
        state: State,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Read the next tokens of each row, and bring ``state`` up to date in place.

        ``lengths``: how many of the tokens are real in each row, where rows are padded on the right (none: all); what
        comes out at padding has no meaning, but is finite.
        """

    def step(self, x: Float[Tensor, "batch 1 dim"], state: State) -> Float[Tensor, "batch 1 dim"]:
        """Read one token of each row."""
        return self.prefill(x, state)

    @abstractmethod
    def state_size(self, length: int) -> int:
        """Numbers (not bytes) that the state of one row holds after ``length`` tokens, by the method's formula."""

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """Losses that the last ``forward`` in training adds to the task's own, by name."""
        return {}


def real_tokens(x: Float[Tensor, "batch tokens dim"], lengths: Int64[Tensor, " batch"] | None) -> Tensor:
    """``[batch, tokens]``: whether a token is real; ``ValueError`` where ``lengths`` does not fit ``x``."""
    batch, tokens, _ = x.shape
    if lengths is None:
        return torch.ones(batch, tokens, dtype=torch.bool, device=x.device)
    if lengths.shape != (batch,) or (lengths < 0).any() or (lengths > tokens).any():
        raise ValueError(f"lengths={lengths.tolist()}; it must be {batch} numbers from 0 to {tokens}")
    return torch.arange(tokens, device=x.device) < lengths[:, None]
