# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false, reportInvalidTypeForm=false
"""The forward kernel: a program for each tile of queries, batch entry and head.

It walks first over the key tiles that need no mask, then over those that do, then over the extra keys, with one running
softmax in base 2 (FlashAttention-2, arXiv 2307.08691). Tiles are boxes of the plain heads-last tensors.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fovea.kernels.triton.tile import (
    LN2,
    LOG2E,
    address,
    full_tile,
    load_box,
    load_rows,
    multiply,
    partial_tile,
    places,
    row_axis,
    seen_pairs,
    store_rows,
)


@triton.jit
def _fold(total, top, mass, logits, factor, v, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """Take a tile of keys in. ``factor > 0`` makes logits those of base 2: here, where it costs no operation a pair."""
    higher = tl.maximum(top, tl.max(logits, 1) * factor)
    # Rows that have seen nothing yet have a top of -inf: they subtract 0 instead.
    level = tl.where(higher == float("-inf"), 0.0, higher)
    weights = tl.exp2(logits * factor - level[:, None])
    shrink = tl.exp2(top - level)
    mass = mass * shrink + tl.sum(weights, 1)
    total = multiply(weights.to(v.dtype), v, total * shrink[:, None], PRECISION, WIDEN)
    return total, higher, mass


@triton.jit
def attend(
    query, key, value, key_box, value_box, bias, extra_key, extra_value, out, lse,
    query_strides, key_strides, value_strides, extra_key_strides, extra_value_strides, bias_strides,
    tiles, rows, columns, list_stride, counts, query_grid, key_grid, steps, bias_low,
    heads, group, extra, scale,
    QUERY_TILE: tl.constexpr, KEY_TILE: tl.constexpr, AXES: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    LISTS: tl.constexpr, LAYERED: tl.constexpr, PADDED: tl.constexpr, BIAS: tl.constexpr, EXTRA: tl.constexpr,
    POSITIVE: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, WIDE: tl.constexpr, BOXED: tl.constexpr,
):  # fmt: skip
    """Strides are of batch, the three axes and the head (bias: of head and axes; extra: of batch, token and head).
    ``list_stride``: from the lists of one kv head to those of the next, in row tiles. ``key_box`` and ``value_box``:
    see ``load_box``. ``POSITIVE``: whether ``scale > 0``."""
    QUERIES: tl.constexpr = QUERY_TILE[0] * QUERY_TILE[1] * QUERY_TILE[2]
    KEYS: tl.constexpr = KEY_TILE[0] * KEY_TILE[1] * KEY_TILE[2]
    ENTRY = 3 if LAYERED else 2
    programs = counts[0] * counts[1] * counts[2]
    program = tl.program_id(0)
    # The last tiles first: under causal patterns they are the heaviest.
    tile = programs - 1 - program % programs
    batch = (program // programs) // heads
    head = (program // programs) % heads
    kv_head = head // group
    kv_heads = heads // group
    i0 = tile // (counts[1] * counts[2])
    i1 = (tile // counts[2]) % counts[1]
    i2 = tile % counts[2] + (batch * kv_heads + kv_head) * list_stride

    p0, p1, p2 = places(QUERY_TILE)
    q0, in0, start0, stop0 = row_axis(tiles[0], rows[0], i0, p0, steps[0])
    q1, in1, start1, stop1 = row_axis(tiles[1], rows[1], i1, p1, steps[1])
    q2, in2, start2, stop2 = row_axis(tiles[2], rows[2], i2, p2, steps[2])
    inside = in0 & in1 & in2
    query += batch.to(tl.int64) * query_strides[0] + head.to(tl.int64) * query_strides[4]
    key += batch.to(tl.int64) * key_strides[0] + kv_head.to(tl.int64) * key_strides[4]
    value += batch.to(tl.int64) * value_strides[0] + kv_head.to(tl.int64) * value_strides[4]
    q = load_rows(query, address(q0, q1, q2, query_strides, WIDE), inside, HEAD_DIM, BLOCK_DIM, True)

    r0, r1, r2 = tiles[0] + i0 * 8, tiles[1] + i1 * 8, tiles[2] + i2 * 8
    o0, o1, o2 = tl.load(r0 + 4), tl.load(r1 + 4), tl.load(r2 + 4)
    v0, v1, v2 = tl.load(r0 + 5), tl.load(r1 + 5), tl.load(r2 + 5)
    b0, b1, b2 = tl.load(r0 + 6), tl.load(r1 + 6), tl.load(r2 + 6)
    f0, f1, f2 = tl.load(r0 + 7), tl.load(r1 + 7), tl.load(r2 + 7)
    c0, c1, c2 = tl.load(r0 + 2), tl.load(r1 + 2), tl.load(r2 + 2)
    k0, k1, k2 = places(KEY_TILE)
    if LISTS:
        first_full, fulls, first_partial, partials = o2, v2 - o2, b2, f2 - b2
    else:
        first_full, first_partial = 0, 0
        fulls = f0 * f1 * f2
        partials = v0 * v1 * v2 - fulls
    if BIAS:
        table = bias + head * bias_strides[0]
        s0 = tl.load(rows[0] + q0 * 4 + 2, mask=in0, other=0) + bias_low[0]
        s1 = tl.load(rows[1] + q1 * 4 + 2, mask=in1, other=0) + bias_low[1]
        s2 = tl.load(rows[2] + q2 * 4 + 2, mask=in2, other=0) + bias_low[2]

    logit = scale * LOG2E
    factor = 1.0 if BIAS or not POSITIVE else logit
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    mass = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, BLOCK_VALUE), tl.float32)

    for number in range(fulls):
        if LISTS:
            a0, a1, a2 = 0, 0, tl.load(columns + (first_full + number) * ENTRY)
        else:
            j0, j1, j2 = full_tile(number, f1, f2, AXES)
            a0 = o0 + (b0 + j0) * KEY_TILE[0]
            a1 = o1 + (b1 + j1) * KEY_TILE[1]
            a2 = o2 + (b2 + j2) * KEY_TILE[2]
        m0, m1, m2 = a0 + k0, a1 + k1, a2 + k2
        y0, y1, y2 = (c0 + a0, c1 + a1, c2 + a2) if BOXED else (a0, a1, a2)
        x0, x1, x2 = c0 + m0 * steps[0], c1 + m1 * steps[1], c2 + m2 * steps[2]
        k = load_box(
            key, key_box, batch, kv_head, y0, y1, y2, x0, x1, x2, key_strides, key_grid,
            KEY_TILE, HEAD_DIM, BLOCK_DIM, PADDED, WIDE, BOXED,
        )  # fmt: skip
        v = load_box(
            value, value_box, batch, kv_head, y0, y1, y2, x0, x1, x2, value_strides, key_grid,
            KEY_TILE, VALUE_DIM, BLOCK_VALUE, PADDED, WIDE, BOXED,
        )  # fmt: skip
        logits = multiply(q, tl.trans(k), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION, WIDEN)
        if BIAS or not POSITIVE:
            logits *= logit
        if BIAS:
            place = (
                (m0[None, :] - s0[:, None]) * bias_strides[1]
                + (m1[None, :] - s1[:, None]) * bias_strides[2]
                + (m2[None, :] - s2[:, None]) * bias_strides[3]
            )
            logits += tl.load(table + place, mask=inside[:, None], other=0.0).to(tl.float32) * LOG2E
        total, top, mass = _fold(total, top, mass, logits, factor, v, PRECISION, WIDEN)

    for number in range(partials):
        if LISTS:
            entry = columns + (first_partial + number) * ENTRY
            a0, a1, a2 = 0, 0, tl.load(entry)
            begin2, end2 = start2, tl.minimum(stop2, tl.load(entry + 1))
            if LAYERED:
                row = rows[2] + (tl.load(entry + 2) * query_grid[2] + q2) * 4
                begin2 = tl.load(row, mask=in2, other=0)
                end2 = tl.minimum(tl.load(row + 1, mask=in2, other=0), tl.load(entry + 1))
        else:
            j0, j1, j2 = partial_tile(number, v0, v1, v2, b0, b1, b2, f0, f1, f2, AXES)
            a0, a1, a2 = o0 + j0 * KEY_TILE[0], o1 + j1 * KEY_TILE[1], o2 + j2 * KEY_TILE[2]
            begin2, end2 = start2, stop2
        m0, m1, m2 = a0 + k0, a1 + k1, a2 + k2
        y0, y1, y2 = (c0 + a0, c1 + a1, c2 + a2) if BOXED else (a0, a1, a2)
        x0, x1, x2 = c0 + m0 * steps[0], c1 + m1 * steps[1], c2 + m2 * steps[2]
        k = load_box(
            key, key_box, batch, kv_head, y0, y1, y2, x0, x1, x2, key_strides, key_grid,
            KEY_TILE, HEAD_DIM, BLOCK_DIM, True, WIDE, BOXED,
        )  # fmt: skip
        v = load_box(
            value, value_box, batch, kv_head, y0, y1, y2, x0, x1, x2, value_strides, key_grid,
            KEY_TILE, VALUE_DIM, BLOCK_VALUE, True, WIDE, BOXED,
        )  # fmt: skip
        seen = seen_pairs(m0, m1, m2, start0, start1, begin2, stop0, stop1, end2, AXES)
        logits = multiply(q, tl.trans(k), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION, WIDEN)
        if BIAS or not POSITIVE:
            logits *= logit
        if BIAS:
            place = (
                (m0[None, :] - s0[:, None]) * bias_strides[1]
                + (m1[None, :] - s1[:, None]) * bias_strides[2]
                + (m2[None, :] - s2[:, None]) * bias_strides[3]
            )
            logits += tl.load(table + place, mask=seen & inside[:, None], other=0.0).to(tl.float32) * LOG2E
        logits = tl.where(seen, logits, float("-inf"))
        total, top, mass = _fold(total, top, mass, logits, factor, v, PRECISION, WIDEN)

    if EXTRA:
        extra_key += batch.to(tl.int64) * extra_key_strides[0] + kv_head.to(tl.int64) * extra_key_strides[2]
        extra_value += batch.to(tl.int64) * extra_value_strides[0] + kv_head.to(tl.int64) * extra_value_strides[2]
        for begin in range(0, extra, KEYS):
            token = begin + tl.arange(0, KEYS)
            real = token < extra
            k = load_rows(extra_key, token * extra_key_strides[1], real, HEAD_DIM, BLOCK_DIM, True)
            v = load_rows(extra_value, token * extra_value_strides[1], real, VALUE_DIM, BLOCK_VALUE, True)
            logits = multiply(q, tl.trans(k), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION, WIDEN)
            if BIAS or not POSITIVE:
                logits *= logit
            logits = tl.where(real[None, :], logits, float("-inf"))
            total, top, mass = _fold(total, top, mass, logits, factor, v, PRECISION, WIDEN)

    blind = mass == 0.0
    total = total / tl.where(blind, 1.0, mass)[:, None]
    token = ((batch.to(tl.int64) * query_grid[0] + q0) * query_grid[1] + q1) * query_grid[2] + q2
    token = token * heads + head
    store_rows(out, token * VALUE_DIM, inside, total, VALUE_DIM, BLOCK_VALUE)
    tl.store(
        lse + token, tl.where(blind, float("-inf"), (top + tl.log2(tl.where(blind, 1.0, mass))) * LN2), mask=inside
    )
