"""Where the keys and values of a decoder lie between calls: all of them, or the newest and the first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
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

    def start(self, batch: int, like: Tensor, **shapes: tuple[int, int]) -> State:
        """An empty state: by name, tensors ``[batch, heads, slots, head_dim]`` of these ``(heads, head_dim)``."""
        return State(
            torch.zeros(batch, dtype=torch.int64, device=like.device),
            {name: like.new_zeros(batch, heads, 0, width) for name, (heads, width) in shapes.items()},
        )

    def read(self, state: State, name: str, rows: slice) -> Float[Tensor, "rows slots heads head_dim"]:
        """The slots of some rows, where they lie."""
        return state.tensors[name][rows].transpose(1, 2)

    def write(
        self,
        state: State,
        tokens: int,
        lengths: Int64[Tensor, " batch"] | None,
        **new: Float[Tensor, "batch tokens heads head_dim"],
    ) -> None:
        """Put the next ``tokens`` of each row into ``state``, or as many of them as ``lengths`` says are real, and
        advance its position."""
        places = state.position.tolist()
        ends = [place + tokens for place in places] if lengths is None else (state.position + lengths).tolist()
        slots = self.slots(max(ends, default=0))
        for name, held in state.tensors.items():
            _, heads, before, width = held.shape
            if slots > before:
                grown = held.new_zeros(len(places), heads, slots, width)
                grown[:, :, :before] = held
                state.tensors[name] = grown
        if lengths is None and len(set(places)) == 1:
            self._write_rows(state, slice(None), places[0], ends[0], new)
        else:
            for row, (place, end) in enumerate(zip(places, ends, strict=True)):
                self._write_rows(state, slice(row, row + 1), place, end, new)
        state.position += tokens if lengths is None else lengths

    def _write_rows(self, state: State, rows: slice, begin: int, end: int, new: dict[str, Tensor]) -> None:
        """Tokens ``begin`` to ``end - 1`` of rows that stand alike; of those that share a slot, the last."""
        for low, high in self._kept(begin, end):
            start = self._slot(low)
            if self._slot(high - 1) - start == high - 1 - low:
                where: slice | Tensor = slice(start, start + high - low)
            else:
                where = self.slot(torch.arange(low, high, device=state.position.device))
            for name, tensor in new.items():
                held = self.read(state, name, rows)
                held[:, where] = tensor[rows, low - begin : high - begin].to(held.dtype)

    def _kept(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Ranges of the new tokens that are kept: those of the first pages, and the newest."""
        if self.ring is None:
            return [(begin, end)] if begin < end else []
        first = self.first * self.page
        ranges = [(begin, min(end, first)), (max(begin, first, end - self.ring * self.page), end)]
        return [(low, high) for low, high in ranges if low < high]

    def _slot(self, token: int) -> int:
        start = self.first * self.page
        return token if self.ring is None or token < start else start + (token - start) % (self.ring * self.page)
