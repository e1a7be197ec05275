"""Spans: one axis of a grid pattern, as integer tables.

Along one axis, the query at coordinate ``i`` sees the keys ``start[i], start[i] + step, ... < stop[i]``. Every static
pattern on a grid is a product of such tables, one an axis; masks, tile classes, costs, receptive fields and backward
passes all follow from them by integer arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Spans:
    """The keys that each query of one axis may see.

    Attributes:
        start: ``[queries]``, first key of each query.
        stop: ``[queries]``, one past the last key; ``stop <= start`` where a query sees none.
        step: distance between neighbouring keys of a query (the dilation).
        keys: number of keys on the axis.
        position: ``[queries]``, the key coordinate at which each query stands; offsets of a relative bias are
            ``(key - position) / step``.
        padding: how many all-zero keys lie before and after the axis. Spans may reach into them: ``start`` is then
            negative or ``stop`` beyond ``keys``. Zero keys take part in the softmax with logit 0 (plus bias).

    ``start`` and ``stop`` never decrease from one query to the next of the same residue class (``position % step``);
    from that follow contiguous inverse spans and tile ranges that need only the two ends of a tile.
    """

    start: IntArray
    stop: IntArray
    step: int
    keys: int
    position: IntArray
    padding: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name in ("start", "stop", "position"):
            table = np.ascontiguousarray(getattr(self, name), dtype=np.int64)
            if table.ndim != 1 or len(table) != len(self.start):
                raise ValueError(
                    f"{name} has shape {table.shape}; it must be a vector of {len(self.start)}, as start is"
                )
            table.flags.writeable = False
            object.__setattr__(self, name, table)
        if self.step < 1:
            raise ValueError(f"step={self.step}; it must be at least 1")
        seen = self.counts > 0
        if seen.any():
            first, last = int(self.start[seen].min()), int(self.last[seen].max())
            low, high = -self.padding[0], self.keys + self.padding[1] - 1
            if first < low or last > high:
                raise ValueError(f"spans reach from key {first} to {last}; the axis has keys {low} to {high}")
        if self.step > 1 and ((self.start - self.position) % self.step).any():
            raise ValueError(f"step={self.step}: every span must start in the residue class of its query's position")
        neighbours = np.arange(len(self.start)) + self.position[:1]
        if self.step > 1 and ((self.position - neighbours) % self.step).any():
            raise ValueError(f"step={self.step}: neighbouring queries must stand on neighbouring residue classes")
        for residue in range(min(self.step, len(self.start))):
            rows = self._rows(residue)
            if (np.diff(self.start[rows]) < 0).any() or (np.diff(self.stop[rows]) < 0).any():
                raise ValueError("start and stop must not decrease along the queries of one residue class")

    def _rows(self, residue: int) -> IntArray:
        return np.flatnonzero(self.position % self.step == residue) if self.step > 1 else np.arange(len(self.start))

    @property
    def queries(self) -> int:
        return len(self.start)

    @property
    def counts(self) -> IntArray:
        """``[queries]``: how many keys each query sees."""
        return np.maximum(0, -((self.start - self.stop) // self.step))

    @property
    def last(self) -> IntArray:
        """``[queries]``: the last key of each query; meaningless where ``counts`` is 0."""
        return self.start + (self.counts - 1) * self.step

    @property
    def total(self) -> int:
        """Number of (query, key) pairs of the axis, padding included."""
        return int(self.counts.sum())

    @property
    def padded_keys(self) -> int:
        return self.padding[0] + self.keys + self.padding[1]

    def padded(self) -> Spans:
        """The same spans with the zero keys counted as keys: coordinate 0 is then the first zero key."""
        before = self.padding[0]
        if self.padding == (0, 0):
            return self
        return Spans(self.start + before, self.stop + before, self.step, self.padded_keys, self.position + before)

    def residue(self, residue: int) -> tuple[int, Spans]:
        """The first query of a residue class and the spans of that class alone, which are contiguous.

        Query ``m`` of the class is query ``first + m * step`` of the axis, key ``m`` is key ``residue + m * step``
        (counted without padding). Classes see nothing of each other: each is a problem of its own.
        """
        if self.padding != (0, 0):
            raise ValueError(f"padding={self.padding}; take the residue classes of padded() spans")
        rows = self._rows(residue)
        first = int(rows[0]) if len(rows) else 0
        start = (self.start[rows] - residue) // self.step
        position = (self.position[rows] - residue) // self.step
        keys = max(0, -((residue - self.keys) // self.step))
        return first, Spans(start, start + self.counts[rows], 1, keys, position)

    def mask(self) -> BoolArray:
        """``[queries, padded_keys]``: true where the query sees the key. For small axes only."""
        key = np.arange(-self.padding[0], self.keys + self.padding[1])
        start, stop = self.start[:, None], self.stop[:, None]
        return (key >= start) & (key < stop) & ((key - start) % self.step == 0)

    def inverse(self) -> Spans:
        """For each real key, the queries that see it: again spans, with the same step (used by backward passes)."""
        start, stop = np.zeros(self.keys, np.int64), np.zeros(self.keys, np.int64)
        for residue in range(min(self.step, self.keys)):
            rows = self._rows(residue)
            if not len(rows):
                continue
            keys = np.arange(residue, self.keys, self.step)
            low = np.searchsorted(self.stop[rows], keys, side="right")
            high = np.searchsorted(self.start[rows], keys, side="right")
            start[keys] = np.append(rows, rows[-1] + self.step)[low]
            stop[keys] = np.where(high > low, rows[high - 1] + 1, start[keys])
        return Spans(start, stop, self.step, self.queries, position=start)
