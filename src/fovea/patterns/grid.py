"""Grid patterns: products of spans, under the names that the field gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fovea.patterns.pattern import Grid, GridPattern, PerAxis, at_axis
from fovea.patterns.spans import IntArray, Spans


def _standing(queries: int, keys: int) -> IntArray:
    """Where the queries of a coarser or finer grid stand among the keys: ``floor(i * keys / queries)``."""
    return np.arange(queries, dtype=np.int64) * keys // max(queries, 1)


def _aligned_at_end(queries: int, keys: int) -> IntArray:
    """Where the last ``queries`` tokens of a sequence of ``keys`` tokens stand (decoding with a cache)."""
    return np.arange(queries, dtype=np.int64) + (keys - queries)


@dataclass(frozen=True)
class Full(GridPattern):
    """Every query sees every key. Queries and keys may have any grids.

    >>> Full().mask(2, 3).astype(int)
    array([[1, 1, 1],
           [1, 1, 1]])
    """

    name: ClassVar[str] = "full"

    def axis_spans(self, axis: int, queries: int, keys: int) -> Spans:
        zeros = np.zeros(queries, np.int64)
        return Spans(zeros, zeros + keys, 1, keys, _standing(queries, keys))

    def offsets(self, axis: int, queries: int, keys: int) -> tuple[int, int]:
        position = _standing(queries, keys)
        return -int(position.max(initial=0)), max(keys - 1, 0)


@dataclass(frozen=True)
class SlidingWindow(GridPattern):
    """Each query sees ``left`` keys before itself, itself, and ``right`` keys after; cut at the ends.

    With fewer queries than keys, the queries are the last tokens of the sequence (decoding with a cache). The window
    ``w`` of causal language models (its own token included) is ``SlidingWindow(left=w - 1)``.

    >>> SlidingWindow(left=1).mask(3).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [0, 1, 1]])
    """

    left: PerAxis
    right: PerAxis = 0
    name: ClassVar[str] = "sliding"

    def check_axis(self, axis: int) -> None:
        if at_axis(self.left, axis) < 0 or at_axis(self.right, axis) < 0:
            raise self.refuse(axis, "left and right must be at least 0")

    def axis_spans(self, axis: int, queries: int, keys: int) -> Spans:
        left, right = at_axis(self.left, axis), at_axis(self.right, axis)
        position = _aligned_at_end(queries, keys)
        return Spans(np.clip(position - left, 0, keys), np.clip(position + right + 1, 0, keys), 1, keys, position)

    def offsets(self, axis: int, queries: int, keys: int) -> tuple[int, int]:
        return -at_axis(self.left, axis), at_axis(self.right, axis)


@dataclass(frozen=True)
class Causal(GridPattern):
    """Each query sees itself and all keys before it; on grids of several axes, before it on every axis.

    With fewer queries than keys, the queries are the last tokens of the sequence.

    >>> Causal().mask(2, 4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    """

    name: ClassVar[str] = "causal"

    def axis_spans(self, axis: int, queries: int, keys: int) -> Spans:
        position = _aligned_at_end(queries, keys)
        return Spans(np.zeros(queries, np.int64), np.clip(position + 1, 0, keys), 1, keys, position)

    def offsets(self, axis: int, queries: int, keys: int) -> tuple[int, int]:
        return -max(keys - 1, 0), 0


@dataclass(frozen=True)
class Window(GridPattern):
    """Partition into windows (Swin, arXiv 2103.14030): each query sees the window it lies in.

    ``shift`` moves the first edge of the partition to that coordinate, so that the windows before it and at the end are
    shorter. That is exactly the roll-and-mask of shifted windows: after rolling, the two short ends share one window
    and the mask keeps them apart.

    ``border`` says what a grid that is no multiple of ``size`` becomes:

    * ``"mask"``: the last window is shorter;
    * ``"zero"``: zero keys with zero values fill the grid up to the next multiple at its end, and take their share of
      the softmax (Swin's padding before the roll).

    >>> Window(2, shift=1).mask(3).astype(int)
    array([[1, 0, 0],
           [0, 1, 1],
           [0, 1, 1]])
    >>> Window(2, border="zero").mask(3).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 1, 1]])
    """

    size: PerAxis
    shift: PerAxis = 0
    border: Literal["mask", "zero"] = "mask"
    name: ClassVar[str] = "window"

    def check_axis(self, axis: int) -> None:
        size, shift = at_axis(self.size, axis), at_axis(self.shift, axis)
        if size < 1:
            raise self.refuse(axis, "size must be at least 1")
        if not 0 <= shift < size:
            raise self.refuse(axis, f"shift must be 0 to {size - 1}")
        if self.border not in ("mask", "zero"):
            raise self.refuse(axis, "border must be 'mask' or 'zero'")

    def axis_spans(self, axis: int, queries: int, keys: int) -> Spans:
        size, shift = at_axis(self.size, axis), at_axis(self.shift, axis)
        position = _standing(queries, keys)
        edge = (position - shift) // size * size + shift
        end = -(-keys // size) * size if self.border == "zero" else keys
        start, stop = np.clip(edge, 0, end), np.clip(edge + size, 0, end)
        return Spans(start, stop, 1, keys, position, padding=(0, end - keys))

    def offsets(self, axis: int, queries: int, keys: int) -> tuple[int, int]:
        size = at_axis(self.size, axis)
        return 1 - size, size - 1


@dataclass(frozen=True)
class Halo(GridPattern):
    """Blocked attention with a halo (HaloNet, arXiv 2103.12731, section 2; the overlapping cross-attention of HAT).

    The queries of a block see the block widened by ``halo`` keys on both sides. ``border`` says what becomes of a
    widened block that reaches out of the grid:

    * ``"mask"``: what lies outside is not seen;
    * ``"zero"``: what lies outside is seen as zero keys with zero values, which take their share of the softmax;
    * ``"shift"``: the widened block is moved inside (the generalized neighborhood of window ``block + 2 halo`` and
      stride ``block``).

    A query grid coarser than the key grid holds every r-th query (attention that downsamples).
    """

    block: PerAxis
    halo: PerAxis
    border: Literal["mask", "zero", "shift"] = "mask"
    name: ClassVar[str] = "halo"

    def check_axis(self, axis: int) -> None:
        if at_axis(self.block, axis) < 1 or at_axis(self.halo, axis) < 0:
            raise self.refuse(axis, "block must be at least 1 and halo at least 0")
        if self.border not in ("mask", "zero", "shift"):
            raise self.refuse(axis, "border must be 'mask', 'zero' or 'shift'")

    def axis_spans(self, axis: int, queries: int, keys: int) -> Spans:
        block, halo = at_axis(self.block, axis), at_axis(self.halo, axis)
        position = _standing(queries, keys)
        start = position // block * block - halo
        width = block + 2 * halo
        if self.border == "zero":
            beyond = int((start + width).max(initial=keys)) - keys
            return Spans(start, start + width, 1, keys, position, padding=(halo if queries else 0, beyond))
        if self.border == "shift":
            if width > keys:
                raise self.refuse(axis, f"block + 2 halo is {width}; it must fit in the {keys} keys to be shifted")
            start = np.clip(start, 0, keys - width)
            return Spans(start, start + width, 1, keys, position)
        return Spans(np.clip(start, 0, keys), np.clip(start + width, 0, keys), 1, keys, position)

    def offsets(self, axis: int, queries: int, keys: int) -> tuple[int, int]:
        block, halo = at_axis(self.block, axis), at_axis(self.halo, axis)
        reach = block + halo - 1
        return (1 - block - 2 * halo, block + 2 * halo - 1) if self.border == "shift" else (-reach, reach)


@dataclass(frozen=True)
class Neighborhood(GridPattern):
    """(Generalized) neighborhood attention (NAT, DiNAT, FNA, GNA: arXiv 2204.07143, 2209.15001, 2403.04690,
    2504.16922).

    Each query sees the ``window`` nearest keys of each axis; at the borders the window is moved inside, so that every
    query sees equally many. An even window has one more key on the left.

    * ``stride``: groups of so many neighbouring queries share the window of their leader (1: sliding window;
      ``window``: blocked).
    * ``dilation``: neighbours are so far apart; a query sees its own residue class only.
    * ``causal``: on these axes the window ends at the query itself and is cut, not moved, at the beginning.

    >>> Neighborhood(3).mask(4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 0],
           [0, 1, 1, 1],
           [0, 1, 1, 1]])
    """

    window: PerAxis
    stride: PerAxis = 1
    dilation: PerAxis = 1
    causal: bool | tuple[bool, ...] = False
    name: ClassVar[str] = "neighborhood"

    def check_axis(self, axis: int) -> None:
        window, stride, dilation = (at_axis(v, axis) for v in (self.window, self.stride, self.dilation))
        if at_axis(self.causal, axis) not in (0, 1):
            raise self.refuse(axis, "causal must be true or false")
        if window < 1:
            raise self.refuse(axis, "window must be at least 1")
        if not 1 <= stride <= window:
            raise self.refuse(axis, f"stride must be 1 to {window}, the window")
        if dilation < 1:
            raise self.refuse(axis, "dilation must be at least 1")

    def check(self, query_grid: Grid, key_grid: Grid) -> None:
        super().check(query_grid, key_grid)
        if query_grid != key_grid:
            raise ValueError(f"{self}: queries and keys must share one grid; they have {query_grid} and {key_grid}")

    def axis_spans(self, axis: int, queries: int, keys: int) -> Spans:
        window, stride, dilation = (at_axis(v, axis) for v in (self.window, self.stride, self.dilation))
        if queries and window * dilation > keys:
            raise self.refuse(axis, f"window * dilation is {window * dilation}; it must fit in the {keys} keys")
        i = np.arange(queries, dtype=np.int64)
        group, place = i % dilation, i // dilation
        members = (keys - group + dilation - 1) // dilation
        if at_axis(self.causal, axis):
            leader = np.minimum(place // stride * stride + stride - 1, members - 1)
            first, last = np.maximum(leader - window + 1, 0), place
        else:
            leader = np.minimum(place // stride * stride + stride // 2, members - 1)
            first = np.clip(leader - window // 2, 0, members - window)
            last = first + window - 1
        return Spans(first * dilation + group, last * dilation + group + 1, dilation, keys, i)

    def offsets(self, axis: int, queries: int, keys: int) -> tuple[int, int]:
        window = at_axis(self.window, axis)
        return 1 - window, window - 1


@dataclass(frozen=True)
class Product(GridPattern):
    """A pattern of its own for each axis: ``Product((Causal(), Neighborhood(7)))`` is causal in time, local in space.

    Parts are made for one axis (their parameters are plain integers).
    """

    parts: tuple[GridPattern, ...]
    name: ClassVar[str] = "product"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not 1 <= len(self.parts) <= 3:
            raise ValueError(f"Product takes 1 to 3 parts, one an axis; got {len(self.parts)}")
        for axis, part in enumerate(self.parts):
            if not isinstance(part, GridPattern) or isinstance(part, Product) or part.ndim not in (None, 1):
                raise ValueError(f"Product, axis {axis}: {part} must be a grid pattern of one axis")

    @property
    def ndim(self) -> int:
        return len(self.parts)

    def check(self, query_grid: Grid, key_grid: Grid) -> None:
        super().check(query_grid, key_grid)
        for part, queries, keys in zip(self.parts, query_grid, key_grid, strict=True):
            part.check((queries,), (keys,))

    def axis_spans(self, axis: int, queries: int, keys: int) -> Spans:
        return self.parts[axis].axis_spans(0, queries, keys)

    def offsets(self, axis: int, queries: int, keys: int) -> tuple[int, int]:
        return self.parts[axis].offsets(0, queries, keys)
