# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false, reportInvalidTypeForm=false
"""What all kernels do with a tile: where its tokens are, which pairs see each other, products in the right precision.

A tile has three axes. Places in it are numbered row-major; each axis has its vector of coordinates.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def multiply(a, b, total, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """``total + a @ b`` in float32. The interpreter has no products of bfloat16: there they are widened."""
    if WIDEN:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def places(TILE: tl.constexpr):
    """The coordinates inside a tile on each axis."""
    place = tl.arange(0, TILE[0] * TILE[1] * TILE[2])
    return place // (TILE[1] * TILE[2]), (place // TILE[2]) % TILE[1], place % TILE[2]


@triton.jit
def row_axis(tiles, rows, number, place, step):
    """On one axis, of the rows of a tile: their coordinates, whether they are on the grid, and their columns."""
    record = tiles + number * 8
    coordinate = tl.load(record) + place * step
    inside = place < tl.load(record + 1)
    row = rows + coordinate * 4
    start = tl.load(row, mask=inside, other=0)
    stop = tl.load(row + 1, mask=inside, other=0)
    return coordinate, inside, start, stop


@triton.jit
def address(c0, c1, c2, strides, WIDE: tl.constexpr):
    """Where tokens are, in elements from the first token of their batch entry and head."""
    if WIDE:
        c0, c1, c2 = c0.to(tl.int64), c1.to(tl.int64), c2.to(tl.int64)
    return c0 * strides[1] + c1 * strides[2] + c2 * strides[3]


@triton.jit
def on_grid(c0, c1, c2, grid):
    """Whether coordinates are on the grid."""
    return (c0 >= 0) & (c0 < grid[0]) & (c1 >= 0) & (c1 < grid[1]) & (c2 >= 0) & (c2 < grid[2])


@triton.jit
def load_rows(tensor, where, inside, DIM: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr):
    """``[tokens, BLOCK]``: the vectors of tokens; zeros beyond their width and, with ``MASKED``, out of the grid."""
    lane = tl.arange(0, BLOCK)
    at = tensor + where[:, None] + lane[None, :]
    if MASKED and DIM != BLOCK:
        return tl.load(at, mask=inside[:, None] & (lane < DIM)[None, :], other=0.0)
    if MASKED:
        return tl.load(at, mask=inside[:, None], other=0.0)
    if DIM != BLOCK:
        return tl.load(at, mask=(lane < DIM)[None, :], other=0.0)
    return tl.load(at)


@triton.jit
def load_box(
    tensor, box, batch, head, y0, y1, y2, x0, x1, x2, strides, grid,
    TILE: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
    BOXED: tl.constexpr,
):  # fmt: skip
    """``[tokens, BLOCK]``: the tile whose tokens are at ``x``; zeros out of the grid where it is ``MASKED``. With
    ``BOXED`` they are neighbours from ``y`` on, read from ``box``, a descriptor of the whole tensor, in one copy by the
    hardware; else from ``tensor``, which begins at the batch entry and head."""
    if BOXED:
        return box.load([batch, y0, y1, y2, head * DIM]).reshape(TILE[0] * TILE[1] * TILE[2], DIM)
    return load_rows(tensor, address(x0, x1, x2, strides, WIDE), on_grid(x0, x1, x2, grid), DIM, BLOCK, MASKED)


@triton.jit
def store_rows(tensor, where, inside, values, DIM: tl.constexpr, BLOCK: tl.constexpr):
    """The inverse of ``load_rows``, in the tensor's dtype."""
    lane = tl.arange(0, BLOCK)
    at = tensor + where[:, None] + lane[None, :]
    tl.store(at, values.to(tensor.dtype.element_ty), mask=inside[:, None] & (lane < DIM)[None, :])


@triton.jit
def seen_pairs(m0, m1, m2, start0, start1, start2, stop0, stop1, stop2, AXES: tl.constexpr):
    """``[rows, columns]``: the outer product of one comparison an axis; ``m`` are the columns' members."""
    seen = (m2[None, :] >= start2[:, None]) & (m2[None, :] < stop2[:, None])
    if AXES > 1:
        seen &= (m1[None, :] >= start1[:, None]) & (m1[None, :] < stop1[:, None])
    if AXES > 2:
        seen &= (m0[None, :] >= start0[:, None]) & (m0[None, :] < stop0[:, None])
    return seen


@triton.jit
def full_tile(number, f1, f2, AXES: tl.constexpr):
    """Numbers on each axis of the ``number``-th of a box of full tiles, counted from the box's corner."""
    if AXES == 1:
        return 0, 0, number
    if AXES == 2:
        return 0, number // f2, number % f2
    return number // (f1 * f2), (number // f2) % f1, number % f2


@triton.jit
def beside(number, begin, full):
    """The ``number``-th tile of an axis that is not among the ``full`` ones from ``begin`` on."""
    return tl.where(number < begin, number, number + full)


@triton.jit
def partial_tile(number, v0, v1, v2, b0, b1, b2, f0, f1, f2, AXES: tl.constexpr):
    """Numbers on each axis of the ``number``-th visited tile that is not in the box of full ones.

    ``v`` tiles are visited on an axis, the ``f`` tiles from ``b`` on are full. The others are slabs: beside the box on
    axis 0; else beside it on axis 1; else on axis 2.
    """
    slab0 = (v0 - f0) * v1 * v2
    slab1 = f0 * (v1 - f1) * v2
    if AXES == 1:
        return 0, 0, beside(number, b2, f2)
    first = number < slab0
    second = number < slab0 + slab1
    n1 = number - slab0
    n2 = n1 - slab1
    w1 = tl.maximum(v1 - f1, 1)
    w2 = tl.maximum(v2 - f2, 1)
    g1 = tl.maximum(f1, 1)
    j0 = tl.where(first, beside(number // (v1 * v2), b0, f0),
                  b0 + tl.where(second, n1 // (w1 * v2), n2 // (g1 * w2)))  # fmt: skip
    j1 = tl.where(first, (number // v2) % v1,
                  tl.where(second, beside((n1 // v2) % w1, b1, f1), b1 + (n2 // w2) % g1))  # fmt: skip
    j2 = tl.where(first, number % v2, tl.where(second, n1 % v2, beside(n2 % w2, b2, f2)))
    return j0, j1, j2
