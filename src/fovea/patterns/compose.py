"""Patterns made of patterns: unions, and a pattern of its own for each head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from fovea.patterns.pattern import Grid, Pattern, as_grids
from fovea.patterns.spans import BoolArray


def _check_parts(name: str, parts: tuple[Pattern, ...], inside: tuple[type[Pattern], ...]) -> int | None:
    if not parts or any(not isinstance(part, Pattern) for part in parts):
        raise ValueError(f"{name} takes one or more patterns; got {parts!r}")
    for part in parts:
        if isinstance(part, inside):
            raise ValueError(f"{name} cannot hold {part}")
    axes = {part.ndim for part in parts} - {None}
    if len(axes) > 1:
        raise ValueError(f"{name}: the parts are made for different numbers of axes, {sorted(map(str, axes))}")
    return axes.pop() if axes else None


def _common_padding(
    whole: Pattern, parts: tuple[Pattern, ...], query_grid: Grid, key_grid: Grid
) -> tuple[tuple[int, int], ...]:
    paddings = {part.padding(query_grid, key_grid): part for part in parts}
    if len(paddings) > 1:
        found = "; ".join(f"{part}: {padding}" for padding, part in paddings.items())
        raise ValueError(f"{whole}: all parts must pad the keys with equally many zeros before and after; got {found}")
    return next(iter(paddings))


@dataclass(frozen=True)
class Union(Pattern):
    """A query sees what any part lets it see; a key seen by two parts counts once.

    >>> from fovea.patterns import Neighborhood, SlidingWindow
    >>> Union((SlidingWindow(0), Neighborhood(2, dilation=2))).mask(4).astype(int)
    array([[1, 0, 1, 0],
           [0, 1, 0, 1],
           [1, 0, 1, 0],
           [0, 1, 0, 1]])
    """

    parts: tuple[Pattern, ...]
    name: ClassVar[str] = "union"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        _check_parts("Union", self.parts, (PerHead,))

    @property
    def ndim(self) -> int | None:
        return _check_parts("Union", self.parts, ())

    def check(self, query_grid: Grid, key_grid: Grid) -> None:
        super().check(query_grid, key_grid)
        for part in self.parts:
            part.check(query_grid, key_grid)

    def padding(self, query_grid: Grid, key_grid: Grid) -> tuple[tuple[int, int], ...]:
        return _common_padding(self, self.parts, query_grid, key_grid)

    def mask(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> BoolArray:
        query_grid, key_grid = as_grids(query_grid, key_grid)
        self.padding(query_grid, key_grid)
        return reduce(np.logical_or, (part.mask(query_grid, key_grid) for part in self.parts))

    def inverse(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> tuple[Any, ...]:
        """The inverse of each part."""
        return tuple(part.inverse(query_grid, key_grid) for part in self.parts)


@dataclass(frozen=True)
class PerHead(Pattern):
    """Head ``h`` follows ``parts[h]``."""

    parts: tuple[Pattern, ...]
    name: ClassVar[str] = "perhead"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        _check_parts("PerHead", self.parts, (PerHead,))

    @property
    def heads(self) -> int:
        return len(self.parts)

    @property
    def ndim(self) -> int | None:
        return _check_parts("PerHead", self.parts, ())

    def check(self, query_grid: Grid, key_grid: Grid) -> None:
        super().check(query_grid, key_grid)
        for part in self.parts:
            part.check(query_grid, key_grid)

    def padding(self, query_grid: Grid, key_grid: Grid) -> tuple[tuple[int, int], ...]:
        return _common_padding(self, self.parts, query_grid, key_grid)

    def mask(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> BoolArray:
        query_grid, key_grid = as_grids(query_grid, key_grid)
        self.padding(query_grid, key_grid)
        return np.stack([part.mask(query_grid, key_grid) for part in self.parts])

    def inverse(self, query_grid: int | Grid, key_grid: int | Grid | None = None) -> tuple[Any, ...]:
        """The inverse of each head's pattern."""
        return tuple(part.inverse(query_grid, key_grid) for part in self.parts)
