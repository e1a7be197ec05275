"""What every pattern is: a value that says which keys a query may see.

Patterns are frozen dataclasses. They know nothing of tensors, heads' widths or devices; they are compared, hashed,
printed and parsed like numbers. ``str(pattern)`` is stable and ``parse`` (see ``text.py``) reads it back.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from dataclasses import fields
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fovea.patterns.spans import BoolArray, Spans

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.nn.attention.flex_attention import BlockMask

    from fovea.patterns.cost import Cost
    from fovea.patterns.flex import MaskMod
    from fovea.patterns.order import Permutation
    from fovea.patterns.reach import ReceptiveField, ShardHalo
    from fovea.patterns.simulator import Simulation
    from fovea.patterns.tiles import Tiling

Grid = tuple[int, ...]
PerAxis = int | tuple[int, ...]
"""A parameter of each axis: one integer for all axes, or a tuple with one an axis."""


def as_grid(grid: int | tuple[int, ...] | list[int], name: str = "grid") -> Grid:
    """``7 -> (7,)``, ``[4, 5] -> (4, 5)``; refuses anything that is no shape of 1 to 3 axes."""
    sizes = (grid,) if isinstance(grid, int | np.integer) else tuple(grid)
    if not 1 <= len(sizes) <= 3 or any(not isinstance(n, int | np.integer) or n < 0 for n in sizes):
        raise ValueError(f"{name}={grid!r}; it must be the shape of a grid with 1, 2 or 3 axes, e.g. (64, 64)")
    return tuple(int(n) for n in sizes)


def as_grids(query_grid: int | Grid, key_grid: int | Grid | None) -> tuple[Grid, Grid]:
    """Both grids; keys stand on the queries' grid where they are given none."""
    query_grid = as_grid(query_grid, "query_grid")
    return query_grid, query_grid if key_grid is None else as_grid(key_grid, "key_grid")


def at_axis(value: PerAxis, axis: int) -> int:
    """The parameter's value on one axis."""
    return int(value[axis]) if isinstance(value, tuple) else int(value)


class _Written(ABCMeta):
    """Patterns get their text when they are made, as a plain attribute: all that torch.compile can read of them."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        from fovea.patterns.text import to_text

        pattern = super().__call__(*args, **kwargs)
        object.__setattr__(pattern, "text", to_text(pattern))
        return pattern


class Pattern(metaclass=_Written):
    """Which keys each query may see.

    Subclasses are frozen dataclasses whose ``name`` is the first word of their text form.

    Attributes:
        text: the pattern in words, ``str(pattern)``.
    """

    name: ClassVar[str]
    text: ClassVar[str]  # of each pattern its own, and no field of the dataclass

    @property
    @abstractmethod
    def ndim(self) -> int | None:
        """Number of grid axes the pattern is made for; ``None`` where any will do."""

    @abstractmethod
    def mask(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> BoolArray:
        """``[queries, keys]`` (tokens in row-major order): true where the query sees the key. For small cases only:
        memory is quadratic. Where the pattern pads the keys with zeros, the keys are those of the padded grid.
        Patterns that differ from head to head return ``[heads, queries, keys]``."""

    def padding(self, query_grid: Grid, key_grid: Grid) -> tuple[tuple[int, int], ...]:
        """How many zero keys the pattern puts before and after each axis of the keys."""
        self.check(query_grid, key_grid)
        return ((0, 0),) * len(key_grid)

    def check(self, query_grid: Grid, key_grid: Grid) -> None:
        """Raise ``ValueError`` when the pattern has no meaning on these grids."""
        if len(query_grid) != len(key_grid):
            raise ValueError(f"{self}: query grid {query_grid} and key grid {key_grid} must have equally many axes")
        if self.ndim is not None and self.ndim != len(query_grid):
            raise ValueError(f"{self} is made for {self.ndim} axes; the query grid {query_grid} has {len(query_grid)}")

    def __str__(self) -> str:
        return self.text

    def pairs(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> int:
        """Exact number of (query, key) pairs, zero keys included; over all heads for a pattern by heads."""
        from fovea.patterns.cost import count_pairs

        return count_pairs(self, query_grid, key_grid)

    @abstractmethod
    def inverse(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> Any:
        """For each key, the queries that see it: spans of each axis for a grid pattern, compressed rows of query
        blocks for a block pattern, and one such thing a part for what is made of parts."""

    def keys(
        self, query: int | tuple[int, ...], query_grid: int | Grid, key_grid: int | Grid | None = None
    ) -> BoolArray:
        """The keys that one query sees; see :func:`fovea.patterns.neighbors.seen_keys`."""
        from fovea.patterns.neighbors import seen_keys

        return seen_keys(self, query, query_grid, key_grid)

    def cost(self, query_grid: int | Grid, key_grid: int | Grid | None = None, **shape: int) -> Cost:
        """Pairs, operations and bytes; see :func:`fovea.patterns.cost.cost`."""
        from fovea.patterns.cost import cost

        return cost(self, query_grid, key_grid, **shape)

    def flops(
        self, query_grid: int | Grid, key_grid: int | Grid | None = None, *, backward: bool = False, **shape: int
    ) -> int:
        """Floating-point operations of the forward (or the backward) pass; see :func:`fovea.patterns.cost.cost`."""
        cost = self.cost(query_grid, key_grid, **shape)
        return cost.backward if backward else cost.forward

    def density(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> float:
        """Pairs over those of dense attention."""
        return self.cost(query_grid, key_grid).density

    def receptive_field(
        self, grid: int | Grid, query: int | tuple[int, ...] | None = None, depth: int = 1
    ) -> ReceptiveField:
        """What a query sees through so many layers; see :func:`fovea.patterns.reach.receptive_field`."""
        from fovea.patterns.reach import receptive_field

        return receptive_field(self, grid, query, depth)

    def shard_halo(self, grid: int | Grid, shards: int | Grid) -> tuple[tuple[ShardHalo, ...], ...]:
        """Keys that each shard of the grid needs beside its own; see :func:`fovea.patterns.reach.shard_halo`."""
        from fovea.patterns.reach import shard_halo

        return shard_halo(self, grid, shards)

    def permutation(self, grid: int | Grid, tile: int | Grid) -> Permutation:
        """The order of a grid's tokens by tiles and dilation groups; see :class:`fovea.patterns.order.Permutation`."""
        from fovea.patterns.order import Permutation
        from fovea.patterns.states import dilation_of

        grid = as_grid(grid)
        self.check(grid, grid)
        return Permutation(grid, as_grid(tile, "tile"), dilation_of(self, grid, grid))

    def mask_mod(self, query_grid: int | Grid, key_grid: int | Grid | None = None, **options: Any) -> MaskMod:
        """The pattern for FlexAttention; see :func:`fovea.patterns.flex.mask_mod`."""
        from fovea.patterns.flex import mask_mod

        return mask_mod(self, query_grid, key_grid, **options)

    def block_mask(self, query_grid: int | Grid, key_grid: int | Grid | None = None, **options: Any) -> BlockMask:
        """The pattern's blocks for FlexAttention; see :func:`fovea.patterns.flex.block_mask`."""
        from fovea.patterns.flex import block_mask

        return block_mask(self, query_grid, key_grid, **options)

    def draw(
        self,
        grid: int | Grid,
        query: int | tuple[int, ...] | None = None,
        tiles: tuple[int | Grid, int | Grid] | None = None,
        **options: Any,
    ) -> Figure:
        """The picture of the pattern; see :func:`fovea.patterns.draw.draw`."""
        from fovea.patterns.draw import draw

        return draw(self, grid, query, tiles, **options)


class GridPattern(Pattern):
    """A product of spans, one an axis."""

    @property
    def ndim(self) -> int | None:
        lengths = {len(v) for f in fields(self) if isinstance(v := getattr(self, f.name), tuple)}  # type: ignore[arg-type]
        return lengths.pop() if lengths else None

    def __post_init__(self) -> None:
        lengths: dict[str, int] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
            if isinstance(value, tuple):
                lengths[field.name] = len(value)
                value = tuple(self._whole(field.name, item) for item in value)
            elif not str(field.type).startswith("Literal"):  # a word out of a few, which check_axis looks at
                value = self._whole(field.name, value)
            object.__setattr__(self, field.name, value)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__}: parameters disagree on the number of axes: {lengths}")
        if any(not 1 <= length <= 3 for length in lengths.values()):
            raise ValueError(f"{type(self).__name__}: parameters must be given for 1 to 3 axes; got {lengths}")
        for axis in range(next(iter(lengths.values()), 1)):
            self.check_axis(axis)

    def _whole(self, name: str, value: Any) -> int:
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if not isinstance(value, int | np.integer):
            raise ValueError(f"{type(self).__name__}: {name}={value!r} must be a whole number or a tuple of them")
        return int(value)

    def check_axis(self, axis: int) -> None:
        """Raise ``ValueError`` when this axis' parameters are impossible on any grid."""

    def refuse(self, axis: int, reason: str) -> ValueError:
        """The error for an impossible description; quotes it."""
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))  # type: ignore[arg-type]
        return ValueError(f"{type(self).__name__}({values}), axis {axis}: {reason}")

    @abstractmethod
    def axis_spans(self, axis: int, queries: int, keys: int) -> Spans:
        """The spans of one axis with so many queries and keys."""

    @abstractmethod
    def offsets(self, axis: int, queries: int, keys: int) -> tuple[int, int]:
        """Smallest and largest ``(key - position) / step`` on the axis: the range of a relative bias table, which
        depends on the description and not on how the grid cuts it (except for patterns that see a whole axis)."""

    def spans(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> tuple[Spans, ...]:
        """One :class:`Spans` an axis. Cached."""
        return _spans(self, *as_grids(query_grid, key_grid))

    def bias_shape(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> tuple[int, ...]:
        """Shape of a relative bias table after its heads axis: the number of offsets of each axis."""
        query_grid, key_grid = as_grids(query_grid, key_grid)
        ranges = [self.offsets(axis, *sizes) for axis, sizes in enumerate(zip(query_grid, key_grid, strict=True))]
        return tuple(high - low + 1 for low, high in ranges)

    def mask(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> BoolArray:
        out = np.ones((1, 1), dtype=np.bool_)
        for spans in self.spans(query_grid, key_grid):
            out = np.kron(out, spans.mask())
        return out

    def padding(self, query_grid: Grid, key_grid: Grid) -> tuple[tuple[int, int], ...]:
        return tuple(spans.padding for spans in self.spans(query_grid, key_grid))

    def pairs(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> int:
        """Exact number of (query, key) pairs, zero keys included."""
        return prod(spans.total for spans in self.spans(query_grid, key_grid))

    def inverse(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> tuple[Spans, ...]:
        """One :class:`Spans` an axis: for each real key, the queries that see it."""
        return tuple(spans.inverse() for spans in self.spans(query_grid, key_grid))

    def tiles(
        self,
        query_grid: int | Grid,
        key_grid: int | Grid | None = None,
        *,
        query_tile: int | Grid,
        key_tile: int | Grid,
    ) -> Tiling:
        """The pattern cut in tiles; see :class:`fovea.patterns.tiles.Tiling`."""
        from fovea.patterns.tiles import Tiling

        return Tiling(self, query_grid, key_grid, query_tile, key_tile)

    def simulate(
        self,
        query_grid: int | Grid,
        key_grid: int | Grid | None = None,
        *,
        query_tile: int | Grid,
        key_tile: int | Grid,
    ) -> Simulation:
        """What these tiles make of the pattern; see :func:`fovea.patterns.simulator.simulate`."""
        from fovea.patterns.simulator import simulate

        return simulate(self, query_grid, key_grid, query_tile=query_tile, key_tile=key_tile)


@lru_cache(maxsize=1024)
def _spans(pattern: GridPattern, query_grid: Grid, key_grid: Grid) -> tuple[Spans, ...]:
    pattern.check(query_grid, key_grid)
    return tuple(
        pattern.axis_spans(axis, queries, keys)
        for axis, (queries, keys) in enumerate(zip(query_grid, key_grid, strict=True))
    )
