"""Blocks chosen at run time: a pattern that carries its own table, such as the clusters that blocks fall into or the
spans that a search found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np

from fovea.patterns.blocks import BlockPattern, BlockTable
from fovea.patterns.pattern import Grid
from fovea.patterns.spans import BoolArray


@dataclass(frozen=True)
class Chosen(BlockPattern):
    """For each block of ``size`` queries, the blocks of ``size`` keys that it sees, as given.

    Row ``r`` of ``rows`` is that of the queries' block ``r``. With ``causal`` a query sees only keys up to its own
    position, the queries are the last tokens, and row 0 is the block in which the first of them stands. Heads or
    examples that chose differently have a pattern each (``PerHead``, or a call each).

    >>> Chosen(2, ((0,), (0, 2), (1,))).mask(5).astype(int)
    array([[1, 1, 0, 0, 0],
           [1, 1, 0, 0, 0],
           [1, 1, 0, 0, 1],
           [1, 1, 0, 0, 1],
           [0, 0, 1, 1, 0]])
    """

    size: int
    rows: tuple[tuple[int, ...], ...]
    causal: bool = False
    name: ClassVar[str] = "chosen"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.causal, bool):
            raise ValueError(f"Chosen(causal={self.causal!r}): causal must be true or false")
        rows = tuple(tuple(int(block) for block in np.unique(np.asarray(row, dtype=np.int64))) for row in self.rows)
        if not rows or any(row and row[0] < 0 for row in rows):
            raise ValueError("Chosen(rows=...): it must have at least one row, and list blocks from 0 on")
        object.__setattr__(self, "rows", rows)

    @classmethod
    def where(cls, size: int, seen: BoolArray, causal: bool = False) -> Chosen:
        """From ``seen [query blocks, key blocks]``: true where the block of queries sees the block of keys."""
        seen = np.asarray(seen)
        if seen.ndim != 2:
            raise ValueError(f"seen has shape {seen.shape}; it must be [query blocks, key blocks]")
        return cls(size, tuple(tuple(np.flatnonzero(row).tolist()) for row in seen), causal)

    @classmethod
    def clusters(cls, size: int, query: object, key: object | None = None, causal: bool = False) -> Chosen:
        """Blocks that see the blocks of their own cluster; ``query [query blocks]`` and ``key [key blocks]`` (by
        default the same) say which cluster that is."""
        mine = np.asarray(query)
        theirs = mine if key is None else np.asarray(key)
        seen = mine[:, None] == theirs[None, :]
        if causal:
            seen = seen & (np.arange(len(theirs)) <= np.arange(len(mine))[:, None] + len(theirs) - len(mine))
        return cls.where(size, seen, causal)

    @classmethod
    def spans(cls, size: int, start: object, stop: object, causal: bool = False) -> Chosen:
        """Blocks that see the key blocks ``start[r] .. stop[r] - 1``."""
        pairs = zip(np.asarray(start).tolist(), np.asarray(stop).tolist(), strict=True)
        return cls(size, tuple(tuple(range(low, high)) for low, high in pairs), causal)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.size, self.rows, self.causal))

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        return super().__str__()

    def check(self, query_grid: Grid, key_grid: Grid) -> None:
        super().check(query_grid, key_grid)
        (queries,), (keys,) = query_grid, key_grid
        if self.causal and queries > keys:
            raise ValueError(f"Chosen: {queries} queries cannot stand at the end of {keys} keys")
        first, rows = self._place(queries, keys)
        if len(self.rows) != rows:
            raise ValueError(
                f"Chosen: its table has {len(self.rows)} rows; {queries} queries stand in {rows} blocks of {self.size}"
            )
        blocks = -(-keys // self.size)
        for row, listed in enumerate(self.rows):
            last = min(blocks - 1, first + row) if self.causal else blocks - 1
            if listed and listed[-1] > last:
                raise ValueError(f"Chosen: row {row} lists block {listed[-1]}; it may list 0 to {last}")

    def _place(self, queries: int, keys: int) -> tuple[int, int]:
        """The block of the first query, and the number of blocks in which queries stand."""
        position = keys - queries if self.causal else 0
        first = position // self.size
        return first, -(-(position + queries) // self.size) - first if queries else len(self.rows)

    def table(self, queries: int, keys: int | None = None) -> BlockTable:
        """The table for so many queries and keys; ``ValueError`` where it was made for others. Cached."""
        keys = queries if keys is None else keys
        self.check((queries,), (keys,))
        return _table(self, queries, keys)


@lru_cache(maxsize=256)
def _table(pattern: Chosen, queries: int, keys: int) -> BlockTable:
    rows = pattern.rows if queries else ()
    indptr = np.append(0, np.cumsum([len(row) for row in rows], dtype=np.int64)).astype(np.int64)
    index = np.array([block for row in rows for block in row], dtype=np.int64)
    position = keys - queries if pattern.causal else 0
    return BlockTable(pattern.size, queries, keys, position, indptr, index, pattern.causal)
