"""Which tiles a problem is cut in: by the work that they would make, computed from the tables of each axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import torch

from fovea.kernels.problem import Problem
from fovea.kernels.triton.interpreter import interpreted
from fovea.kernels.triton.tables import AXES, pattern_axis
from fovea.patterns import BlockPattern, GridPattern, Union
from fovea.patterns.pattern import Grid

MASK = 0.35
"""What masking a pair costs beside computing it."""

PROGRAM = 3e5
"""What starting and ending a program costs, in operations of the matrix products."""

SHARED = 227 << 10
"""Bytes of shared memory of a program on compute capability 9.0."""


@dataclass(frozen=True)
class Tile:
    """Sizes of the boxes, on three axes, and how a program runs.

    Attributes:
        query_tile, key_tile: of the kernels whose programs own queries.
        grad_query_tile, grad_key_tile: of the kernel whose programs own keys.
        warps, stages, grad_warps, grad_stages: warps of a program and stages of its pipeline, of each.
        described: whether programs read boxes through descriptors of the tensors, in one copy by the hardware, where
            these are laid out for it.
    """

    query_tile: Grid
    key_tile: Grid
    grad_query_tile: Grid
    grad_key_tile: Grid
    warps: int = 4
    stages: int = 2
    grad_warps: int = 4
    grad_stages: int = 2
    described: bool = False

    def but(self, **changes: Any) -> Tile:
        """The same with other values."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Size:
    """Places of the tiles that own and of those that are walked over, and how a program of these runs."""

    rows: int
    columns: int
    warps: int
    stages: int


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program may have; those of an H100 where there is no device to ask."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return SHARED
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)


def copies_boxes(device: torch.device) -> bool:
    """Whether the device copies boxes of up to five axes by itself (compute capability 9.0 and newer)."""
    return device.type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (9, 0)


def takes(problem: Problem, size: Size) -> int:
    """Bytes of shared memory that a program takes: its rows, and the stages of the rows it walks over."""
    key, value = (max(16, 1 << (width - 1).bit_length()) for width in (problem.head_dim, problem.value_dim))
    own = key + value if problem.grad else key
    return problem.dtype.itemsize * (size.rows * own + size.stages * size.columns * (key + value))


def sizes(problem: Problem) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    """Sizes that fit the registers and the shared memory of a program, best first: of the kernels over queries and of
    that over keys."""
    limit = shared_memory(problem.device)
    queries, keys = _sizes(problem)
    fitting = [tuple(size for size in some if takes(problem, size) <= limit) for some in (queries, keys)]
    smallest = Size(16, 32, 4, 1)
    return fitting[0] or (smallest,), fitting[1] or ((smallest,) if problem.grad else ())


def _sizes(problem: Problem) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    """What the assembler finds registers for, or nearly (the tests compile them and count what is spilled)."""
    width = max(problem.head_dim, problem.value_dim)
    if interpreted() and problem.device.type == "cpu":
        return (Size(16, 32, 4, 1),), (Size(16, 32, 4, 1),)
    if problem.dtype.itemsize == 4:
        if width > 64:
            return (Size(16, 32, 4, 1),), (Size(16, 32, 4, 1),)
        if problem.grad:
            return (Size(32, 32, 8, 1), Size(32, 32, 4, 1)), (Size(32, 32, 8, 1), Size(32, 16, 4, 1))
        return (Size(64, 32, 8, 2), Size(32, 32, 4, 2)), ()
    if problem.bias:
        # Places in the table of biases take registers for each pair.
        wide = (Size(64, 32, 4, 2), Size(32, 32, 4, 2)) if width <= 128 else (Size(32, 32, 4, 1),)
        return wide, (wide if problem.grad else ())
    if problem.grad:
        if width > 128:
            return (Size(64, 32, 4, 1), Size(32, 32, 4, 1)), (Size(32, 32, 4, 1),)
        queries = (Size(128, 64, 8 if width > 64 else 4, 2), Size(64, 64, 4, 2))
        return queries, (Size(128, 64, 8, 2), Size(128, 32, 8, 2), Size(64, 64, 4, 2), Size(64, 32, 4, 2))
    if width > 128:
        return (Size(128, 64, 8, 2), Size(64, 64, 4, 2)), ()
    if width > 64:
        squares = (Size(128, 128, 8, 2),) if copies_boxes(problem.device) else ()
        return (*squares, Size(128, 64, 8, 3), Size(128, 64, 8, 2), Size(64, 64, 4, 3)), ()
    return (Size(128, 128, 8, 3), Size(128, 64, 4, 3), Size(64, 64, 4, 3), Size(64, 128, 4, 2)), ()


@dataclass(frozen=True)
class Cost:
    """What tiles make of a problem, for one head of one batch entry: pairs of tiles, those without a mask, programs."""

    visited: int
    full: int
    programs: int

    def operations(self, rows: int, columns: int, width: int) -> float:
        """Operations of the matrix products, masks and programs counted as such."""
        pairs = self.visited + MASK * (self.visited - self.full)
        return pairs * rows * columns * 4.0 * width + self.programs * PROGRAM


def cost(problem: Problem, query_tile: Grid, key_tile: Grid, inverse: bool) -> Cost:
    """Of a grid pattern, from its axes alone."""
    pattern = problem.pattern
    assert isinstance(pattern, GridPattern)
    missing = AXES - len(problem.query_grid)
    axes = [
        pattern_axis(pattern, axis, *grid, query_tile[missing + axis], key_tile[missing + axis], inverse)
        for axis, grid in enumerate(zip(problem.query_grid, problem.key_grid, strict=True))
    ]
    return Cost(
        prod(axis.visited for axis in axes), prod(axis.full for axis in axes), prod(len(axis.tiles) for axis in axes)
    )


def boxes(places: int, grid: Grid) -> Iterator[Grid]:
    """Boxes of so many places whose sides are powers of two and not much longer than the grid's."""
    limits = [1] * (AXES - len(grid)) + [2 << max(0, size - 1).bit_length() for size in grid]
    powers = [1 << n for n in range(places.bit_length())]
    found = [box for box in product(powers, repeat=AXES) if prod(box) == places]
    fitting = [box for box in found if all(side <= limit for side, limit in zip(box, limits, strict=True))]
    if fitting:
        yield from fitting
    else:
        yield (
            (1, 1, places)
            if len(grid) == 1
            else min(
                (box for box in found if all(box[axis] == 1 for axis in range(AXES - len(grid)))),
                key=lambda box: max(side / limit for side, limit in zip(box, limits, strict=True)),
            )
        )


@lru_cache(maxsize=1024)
def ranked(problem: Problem, inverse: bool, count: int = 4) -> tuple[tuple[Grid, Grid, Size], ...]:
    """Tiles that own, tiles that are walked over, and their size: those that should take least time, best first."""
    candidates = sizes(problem)[1 if inverse else 0] or sizes(problem.but(grad=True))[1 if inverse else 0]
    if isinstance(problem.pattern, BlockPattern):
        return tuple(((1, 1, _inside(s.rows, problem)), (1, 1, _inside(s.columns, problem)), s) for s in candidates)
    if isinstance(problem.pattern, Union):
        return tuple(((1, 1, s.rows), (1, 1, s.columns), s) for s in candidates)
    width = (problem.head_dim + problem.value_dim) // 2
    own, other = (problem.key_grid, problem.query_grid) if inverse else (problem.query_grid, problem.key_grid)
    found = []
    for place, size in enumerate(candidates):
        for rows, columns in product(boxes(size.rows, own), boxes(size.columns, other)):
            tiles = (columns, rows) if inverse else (rows, columns)
            operations = cost(problem, *tiles, inverse).operations(size.rows, size.columns, width)
            # Smaller tiles reach less of the device's rate.
            found.append((operations * (1 + 0.15 * place), rows, columns, size))
    found.sort(key=lambda item: item[0])
    return tuple((rows, columns, size) for _, rows, columns, size in found[:count])


def _inside(places: int, problem: Problem) -> int:
    """Tiles of block patterns are not longer than their blocks, where blocks are long enough."""
    assert isinstance(problem.pattern, BlockPattern)
    return max(16, min(places, 1 << (problem.pattern.size.bit_length() - 1)))


def predicted(problem: Problem) -> Tile:
    """The tiles that should take least time."""
    rows, columns, size = ranked(problem, False, 1)[0]
    grad_rows, grad_columns, grad = ranked(problem, True, 1)[0] if problem.grad else (rows, columns, size)
    return Tile(rows, columns, grad_columns, grad_rows, size.warps, size.stages, grad.warps, grad.stages,
                copies_boxes(problem.device))  # fmt: skip
