"""Where the keys and values of a decoder lie between calls: all of them, or the newest and the first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fovea.nn.mixer import State


@dataclass(frozen=True)
class KeyCache:
    """A layout of tokens in slots: the ``first`` pages stay where they are, those after them share a ring.

    Attributes:
        page: tokens a page; pages come and go as a whole.
        first: pages kept for ever (sinks).
        ring: pages after these, of which the newest so many are kept; ``None`` keeps all.
    """

    page: int
    first: int = 0
    ring: int | None = None

    @property
    def bound(self) -> int | None:
        """Slots that are never exceeded; ``None`` where all tokens are kept."""
        return None if self.ring is None else (self.first + self.ring) * self.page

    def slots(self, length: int) -> int:
        """Slots held after ``length`` tokens: their pages, up to the bound. Pages are added an eighth of what there is
        at a time, so that the copies that growing makes cost little."""
        pages = -(-length // self.page)
        granule = 1 << max(0, pages.bit_length() - 4)
        slots = -(-pages // granule) * granule * self.page
        return slots if self.bound is None else min(slots, self.bound)

    def slot(self, token: Int64[Tensor, "*tokens"]) -> Int64[Tensor, "*tokens"]:
        """Where the tokens at these positions lie."""
        if self.ring is None:
            return token
        start = self.first * self.page
        return torch.where(token < start, token, start + (token - start) % (self.ring * self.page))

    def whole(self, length: int) -> bool:
        """Whether all of the first ``length`` tokens are still there, in their order."""
        return self.bound is None or length <= self.bound

    def oldest(self, length: int) -> int:
        """The oldest token outside the first pages that is kept after ``length`` of them: the start of a page."""
        assert self.ring is not None
        return (-(-length // self.page) - self.ring) * self.page

    def start(self, batch: int, like: Tensor, **widths: tuple[int, ...]) -> State:
        """An empty state whose tensors ``[batch, slots, *width]`` have these names."""
        return State(
            torch.zeros(batch, dtype=torch.int64, device=like.device),
            {name: like.new_zeros(batch, 0, *width) for name, width in widths.items()},
        )

    def write(
        self, state: State, real: Bool[Tensor, "batch tokens"], **new: Float[Tensor, "batch tokens *width"]
    ) -> None:
        """Put the next tokens of each row into ``state``, but for those that are not ``real``; advances no position."""
        batch, tokens = real.shape
        count = real.sum(1)
        end = state.position + count
        slots = self.slots(int(end.max()) if batch else 0)
        for name, held in state.tensors.items():
            if slots > held.shape[1]:
                grown = held.new_zeros(batch, slots, *held.shape[2:])
                grown[:, : held.shape[1]] = held
                state.tensors[name] = grown
        token = state.position[:, None] + torch.arange(tokens, device=real.device)
        kept = real
        if self.bound is not None:
            assert self.ring is not None
            kept = real & ((token >= end[:, None] - self.ring * self.page) | (token < self.first * self.page))
        rows, places = kept.nonzero(as_tuple=True)
        at = self.slot(token[rows, places])
        for name, tensor in new.items():
            state.tensors[name][rows, at] = tensor[rows, places].to(state.tensors[name].dtype)
