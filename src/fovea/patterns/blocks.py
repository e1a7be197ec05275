"""Block patterns: which blocks of keys a block of queries sees, along a sequence.

All are causal and work on blocks of ``size`` tokens: with ``I`` the block of the query and ``J`` that of the key, a
term says which ``J <= I`` are seen, as a list for each ``I`` (never as a matrix); terms are joined by union. Inside the
query's own block the cut is at the token. (PowerAttention, arXiv 2503.03588, and the baselines it is compared with.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import lru_cache, reduce
from operator import or_
from typing import Any, ClassVar

import numpy as np

from fovea.patterns.pattern import Grid, Pattern, as_grids
from fovea.patterns.spans import BoolArray, IntArray


class Term(ABC):
    """Key blocks seen by a query block. Subclasses are frozen dataclasses; ``name`` is their word in text form."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, _whole(self, tuple(value) if isinstance(value, list) else value))
        self.check()

    def check(self) -> None:  # noqa: B027 - a term without numbers has nothing to check
        """Raise ``ValueError`` when the numbers have no meaning."""

    @abstractmethod
    def blocks(self, row: int) -> IntArray:
        """The key blocks ``0..row`` that query block ``row`` sees; any order, repeats allowed, may leave the range."""

    @property
    @abstractmethod
    def memory(self) -> int | None:
        """Newest blocks, the query's own included, outside of which no block is seen (again); ``None`` where every
        block is seen again. Blocks seen for ever from the beginning on are not counted (``Sink``)."""

    @abstractmethod
    def sees(self, row: Any, block: Any) -> Any:
        """Whether query block ``row`` sees key block ``block``, given that ``block <= row``: the same as ``blocks``, in
        closed form, for integers or integer arrays of any library."""


def _whole(description: object, value: Any) -> Any:
    """The number, or each of a tuple, as Python's integer; refuses what is none."""
    if isinstance(value, tuple):
        return tuple(_whole(description, item) for item in value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ValueError(f"{description}: blocks and tokens are counted in whole numbers")
    return int(value)


@dataclass(frozen=True)
class Local(Term):
    """The last ``window`` blocks, its own included; only every ``dilation``-th of them."""

    window: int
    dilation: int = 1
    name: ClassVar[str] = "local"

    def check(self) -> None:
        if self.window < 1 or self.dilation < 1:
            raise ValueError(f"{self}: window and dilation must be at least 1")

    def blocks(self, row: int) -> IntArray:
        return np.arange(row, row - self.window, -self.dilation)

    @property
    def memory(self) -> int | None:
        return self.window

    def sees(self, row: Any, block: Any) -> Any:
        return (row - block < self.window) & ((row - block) % self.dilation == 0)


@dataclass(frozen=True)
class Sink(Term):
    """The first ``count`` blocks of the sequence."""

    count: int = 1
    name: ClassVar[str] = "sink"

    def check(self) -> None:
        if self.count < 1:
            raise ValueError(f"{self}: count must be at least 1")

    def blocks(self, row: int) -> IntArray:
        return np.arange(self.count)

    @property
    def memory(self) -> int | None:
        return 0

    def sees(self, row: Any, block: Any) -> Any:
        return block < self.count


@dataclass(frozen=True)
class Powers(Term):
    """Its own block and the blocks exactly 1, 2, 4, 8, ... back (PowerAttention, section 3)."""

    name: ClassVar[str] = "powers"

    def blocks(self, row: int) -> IntArray:
        return row - np.concatenate([[0], 1 << np.arange(max(row, 1).bit_length())])

    @property
    def memory(self) -> int | None:
        return None

    def sees(self, row: Any, block: Any) -> Any:
        back = row - block
        return (back & (back - 1)) == 0


@dataclass(frozen=True)
class Offsets(Term):
    """The blocks exactly so many back."""

    back: tuple[int, ...]
    name: ClassVar[str] = "offsets"

    def check(self) -> None:
        if not self.back or min(self.back) < 0:
            raise ValueError(f"{self}: back must list distances of at least 0 blocks")

    def blocks(self, row: int) -> IntArray:
        return row - np.asarray(self.back, dtype=np.int64)

    @property
    def memory(self) -> int | None:
        return max(self.back) + 1

    def sees(self, row: Any, block: Any) -> Any:
        return reduce(or_, ((row - block == back) for back in self.back))


@dataclass(frozen=True)
class Every(Term):
    """Its own block and every ``stride``-th block back (stride slash)."""

    stride: int
    name: ClassVar[str] = "every"

    def check(self) -> None:
        if self.stride < 1:
            raise ValueError(f"{self}: stride must be at least 1")

    def blocks(self, row: int) -> IntArray:
        return np.arange(row, -1, -self.stride)

    @property
    def memory(self) -> int | None:
        return None

    def sees(self, row: Any, block: Any) -> Any:
        return (row - block) % self.stride == 0


@dataclass(frozen=True)
class Segment(Term):
    """LongNet's dilated segment: in each aligned segment of ``length`` blocks, every ``rate``-th block sees every
    ``rate``-th block (arXiv 2307.02486). ``length`` and ``rate`` are powers of two."""

    length: int
    rate: int
    name: ClassVar[str] = "segment"

    def check(self) -> None:
        for value in (self.length, self.rate):
            if value < 1 or value & (value - 1):
                raise ValueError(f"{self}: length and rate must be powers of two")

    def blocks(self, row: int) -> IntArray:
        if row % self.rate:
            return np.empty(0, np.int64)
        return np.arange(row // self.length * self.length, row + 1, self.rate)

    @property
    def memory(self) -> int | None:
        return self.length

    def sees(self, row: Any, block: Any) -> Any:
        aligned = (row % self.rate == 0) & (block % self.rate == 0)
        return aligned & (row // self.length == block // self.length)


TERMS: dict[str, type[Term]] = {term.name: term for term in (Local, Sink, Powers, Offsets, Every, Segment)}


@dataclass(frozen=True, eq=False)
class BlockTable:
    """For each block of queries, the blocks of keys it sees (compressed rows).

    Attributes:
        size: tokens a block; the last block of keys may be shorter.
        queries, keys: number of tokens.
        position: absolute position of the first query; queries stand at ``position + i`` among the keys.
        first_row: block in which the first query stands; row ``r`` of the table is block ``first_row + r``.
        indptr: ``[rows + 1]``; row ``r`` sees the blocks ``index[indptr[r]:indptr[r + 1]]``, ascending.
        index: ``[pairs]``, numbers of key blocks.
        causal: whether, inside these blocks, a query sees only the keys up to its own position.
    """

    size: int
    queries: int
    keys: int
    position: int
    indptr: IntArray
    index: IntArray
    causal: bool = True

    @property
    def first_row(self) -> int:
        return self.position // self.size

    @property
    def rows(self) -> int:
        return len(self.indptr) - 1

    def row(self, row: int) -> IntArray:
        """Key blocks of the table's row ``row``."""
        return self.index[self.indptr[row] : self.indptr[row + 1]]

    def inverse(self) -> tuple[IntArray, IntArray]:
        """``indptr, index``: key block ``J`` is seen by the rows ``index[indptr[J]:indptr[J + 1]]``, ascending (for
        backward passes, which walk over keys)."""
        rows = np.repeat(np.arange(self.rows), np.diff(self.indptr))
        counts = np.bincount(self.index, minlength=-(-self.keys // self.size))
        return np.append(0, np.cumsum(counts)), rows[np.argsort(self.index, kind="stable")]

    def blocks(self) -> BoolArray:
        """``[rows, key blocks]``: which blocks see which."""
        seen = np.zeros((self.rows, -(-self.keys // self.size)), dtype=np.bool_)
        seen[np.repeat(np.arange(self.rows), np.diff(self.indptr)), self.index] = True
        return seen

    def sees(self, query: IntArray, key: IntArray) -> BoolArray:
        """Whether the query at index ``query`` sees the key at ``key``, for arrays that broadcast."""
        at = self.position + query
        seen = self.blocks()[at // self.size - self.first_row, key // self.size]
        return seen & (key <= at) if self.causal else seen

    def mask(self) -> BoolArray:
        """``[queries, keys]``; small cases only."""
        return self.sees(np.arange(self.queries)[:, None], np.arange(self.keys))

    def pairs(self) -> int:
        """Exact number of (query, key) pairs."""
        total = 0
        for row in range(self.rows):
            block = self.first_row + row
            low = max(block * self.size, self.position)
            high = min((block + 1) * self.size, self.position + self.queries)
            others = self.row(row)
            if self.causal and len(others) and others[-1] == block:
                total += sum(range(low - block * self.size + 1, high - block * self.size + 1))
                others = others[:-1]
            total += (high - low) * int((np.minimum((others + 1) * self.size, self.keys) - others * self.size).sum())
        return total


class BlockPattern(Pattern):
    """A pattern on sequences that is a table of key blocks for each query block. Subclasses have a ``size``: tokens a
    block."""

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _whole(f"{type(self).__name__}(size={self.size!r})", self.size))
        if self.size < 1:
            raise ValueError(f"{type(self).__name__}(size={self.size}): size must be at least 1 token")

    @property
    def ndim(self) -> int:
        return 1

    @abstractmethod
    def table(self, queries: int, keys: int | None = None) -> BlockTable:
        """The table for so many queries and (by default equally many) keys."""

    def mask(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> BoolArray:
        query_grid, key_grid = as_grids(query_grid, key_grid)
        self.check(query_grid, key_grid)
        return self.table(query_grid[0], key_grid[0]).mask()

    def pairs(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> int:
        """Exact number of (query, key) pairs."""
        query_grid, key_grid = as_grids(query_grid, key_grid)
        self.check(query_grid, key_grid)
        return self.table(query_grid[0], key_grid[0]).pairs()

    def inverse(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> tuple[IntArray, IntArray]:
        """For each key block the rows of the table that see it; see :meth:`BlockTable.inverse`."""
        query_grid, key_grid = as_grids(query_grid, key_grid)
        self.check(query_grid, key_grid)
        return self.table(query_grid[0], key_grid[0]).inverse()


@dataclass(frozen=True)
class Blocks(BlockPattern):
    """A causal block pattern on sequences: the union of ``terms`` on blocks of ``size`` tokens.

    With fewer queries than keys the queries are the last tokens (decoding): a row of the table depends on the absolute
    position only, so that decoding sees what prefill saw.

    >>> Blocks(2, (Local(1), Sink(1))).mask(5).astype(int)
    array([[1, 0, 0, 0, 0],
           [1, 1, 0, 0, 0],
           [1, 1, 1, 0, 0],
           [1, 1, 1, 1, 0],
           [1, 1, 0, 0, 1]])
    """

    size: int
    terms: tuple[Term, ...]
    name: ClassVar[str] = "blocks"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "terms", (self.terms,) if isinstance(self.terms, Term) else tuple(self.terms))
        if not self.terms or any(not isinstance(term, Term) for term in self.terms):
            raise ValueError(f"Blocks(terms={self.terms!r}): terms must be one or more of {', '.join(TERMS)}")

    @classmethod
    def sliding(cls, size: int, window: int, sink: int = 1) -> Blocks:
        """Sliding window with sinks (StreamingLLM, arXiv 2309.17453)."""
        return cls(size, (Local(window), *([Sink(sink)] if sink else [])))

    @classmethod
    def power(cls, size: int, window: int = 5, sink: int = 1) -> Blocks:
        """PowerAttention (arXiv 2503.03588, section 3)."""
        return cls(size, (Local(window), *([Sink(sink)] if sink else []), Powers()))

    @classmethod
    def strided(cls, size: int, window: int, stride: int, sink: int = 1) -> Blocks:
        """Stride slash: local blocks, sinks and every ``stride``-th block back."""
        return cls(size, (Local(window), *([Sink(sink)] if sink else []), Every(stride)))

    @classmethod
    def dilated(cls, size: int, window: int, dilation: int = 2) -> Blocks:
        """Every ``dilation``-th of the last ``window`` blocks."""
        return cls(size, (Local(window, dilation),))

    @classmethod
    def longnet(cls, size: int, segments: tuple[tuple[int, int], ...]) -> Blocks:
        """LongNet (arXiv 2307.02486): dilated segments ``(length, rate)`` in blocks."""
        return cls(size, tuple(Segment(length, rate) for length, rate in segments))

    @property
    def sinks(self) -> int:
        """Blocks at the beginning that every later block sees."""
        return max((term.count for term in self.terms if isinstance(term, Sink)), default=0)

    @property
    def memory(self) -> int | None:
        """Newest blocks, the query's own included, that a cache must keep beside ``sinks``; ``None``: all."""
        kept = [term.memory for term in self.terms]
        return None if None in kept else max(1, *(blocks for blocks in kept if blocks is not None))

    def table(self, queries: int, keys: int | None = None) -> BlockTable:
        """The table for the last ``queries`` of ``keys`` tokens. Cached."""
        keys = queries if keys is None else keys
        if queries > keys:
            raise ValueError(f"{self}: {queries} queries cannot stand at the end of {keys} keys")
        return _table(self, queries, keys)

    def sees(self, query: Any, key: Any) -> Any:
        """Whether the query at absolute position ``query`` sees the key at ``key``: closed form, for integers or
        integer arrays of any library."""
        row, block = query // self.size, key // self.size
        return (key <= query) & reduce(or_, (term.sees(row, block) for term in self.terms))

    def row(self, block: int) -> IntArray:
        """The key blocks that query block ``block`` sees, ascending and without repeats."""
        seen = np.unique(np.concatenate([term.blocks(block) for term in self.terms]))
        return seen[(seen >= 0) & (seen <= block)].astype(np.int64)


@lru_cache(maxsize=256)
def _table(pattern: Blocks, queries: int, keys: int) -> BlockTable:
    position = keys - queries
    rows = range(position // pattern.size, -(-keys // pattern.size)) if queries else range(0)
    lists = [pattern.row(row) for row in rows]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in lists], dtype=np.int64)]).astype(np.int64)
    index = np.concatenate([*lists, np.empty(0, np.int64)])
    return BlockTable(pattern.size, queries, keys, position, indptr, index)
