# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false, reportInvalidTypeForm=false
"""The backward kernels: one pass over tiles of queries, one over tiles of keys, one over the offsets of the bias.

Weights are recomputed from lse. Every program owns what it writes, so that nothing is added up by atomics and two runs
give the same bits. With weights ``P``: ``dP = dO V^T``, ``dS = P (dP - delta)`` where ``delta = sum(dO * O) - dlse``,
``dQ = scale dS K``, ``dK = scale dS^T Q``, ``dV = P^T dO``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fovea.kernels.triton.tile import (
    LOG2E,
    address,
    full_tile,
    load_box,
    load_rows,
    multiply,
    on_grid,
    partial_tile,
    places,
    row_axis,
    seen_pairs,
    store_rows,
)


@triton.jit
def row_sums(
    grad_out, grad_lse, out, lse, delta, level, grad_strides, query_grid, heads, tokens,
    VALUE_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr, ROWS: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    """``delta`` of each row, and its lse in base 2 (0 where it sees nothing, which keeps its weights 0)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < tokens * heads
    head, token = row % heads, row // heads
    c2 = token % query_grid[2]
    c1 = (token // query_grid[2]) % query_grid[1]
    c0 = (token // (query_grid[2] * query_grid[1])) % query_grid[0]
    batch = token // (query_grid[2] * query_grid[1] * query_grid[0])
    where = batch * grad_strides[0] + c0 * grad_strides[1] + c1 * grad_strides[2] + c2 * grad_strides[3]
    do = load_rows(grad_out, where + head * grad_strides[4], inside, VALUE_DIM, BLOCK_VALUE, True).to(tl.float32)
    o = load_rows(out, row * VALUE_DIM, inside, VALUE_DIM, BLOCK_VALUE, True).to(tl.float32)
    total = tl.sum(do * o, 1)
    if LSE:
        total -= tl.load(grad_lse + row, mask=inside, other=0.0)
    tl.store(delta + row, total, mask=inside)
    natural = tl.load(lse + row, mask=inside, other=0.0)
    tl.store(level + row, tl.where(natural == float("-inf"), 0.0, natural * LOG2E), mask=inside)


@triton.jit
def grad_queries(
    query, key, value, key_box, value_box, bias, extra_key, extra_value, grad_out, delta, level, grad_query,
    query_strides, key_strides, value_strides, grad_strides, extra_key_strides, extra_value_strides, bias_strides,
    tiles, rows, columns, list_stride, counts, query_grid, key_grid, steps, bias_low,
    heads, group, extra, scale,
    QUERY_TILE: tl.constexpr, KEY_TILE: tl.constexpr, AXES: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    LISTS: tl.constexpr, LAYERED: tl.constexpr, PADDED: tl.constexpr, BIAS: tl.constexpr, EXTRA: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, WIDE: tl.constexpr, BOXED: tl.constexpr,
):  # fmt: skip
    """A program for each tile of queries, batch entry and head; walks as the forward kernel does."""
    QUERIES: tl.constexpr = QUERY_TILE[0] * QUERY_TILE[1] * QUERY_TILE[2]
    KEYS: tl.constexpr = KEY_TILE[0] * KEY_TILE[1] * KEY_TILE[2]
    ENTRY = 3 if LAYERED else 2
    programs = counts[0] * counts[1] * counts[2]
    program = tl.program_id(0)
    tile = programs - 1 - program % programs
    batch = (program // programs) // heads
    head = (program // programs) % heads
    kv_head = head // group
    i0 = tile // (counts[1] * counts[2])
    i1 = (tile // counts[2]) % counts[1]
    i2 = tile % counts[2] + (batch * (heads // group) + kv_head) * list_stride

    p0, p1, p2 = places(QUERY_TILE)
    q0, in0, start0, stop0 = row_axis(tiles[0], rows[0], i0, p0, steps[0])
    q1, in1, start1, stop1 = row_axis(tiles[1], rows[1], i1, p1, steps[1])
    q2, in2, start2, stop2 = row_axis(tiles[2], rows[2], i2, p2, steps[2])
    inside = in0 & in1 & in2
    query += batch.to(tl.int64) * query_strides[0] + head.to(tl.int64) * query_strides[4]
    grad_out += batch.to(tl.int64) * grad_strides[0] + head.to(tl.int64) * grad_strides[4]
    key += batch.to(tl.int64) * key_strides[0] + kv_head.to(tl.int64) * key_strides[4]
    value += batch.to(tl.int64) * value_strides[0] + kv_head.to(tl.int64) * value_strides[4]
    token = (((batch.to(tl.int64) * query_grid[0] + q0) * query_grid[1] + q1) * query_grid[2] + q2) * heads + head
    q = load_rows(query, address(q0, q1, q2, query_strides, WIDE), inside, HEAD_DIM, BLOCK_DIM, True)
    do = load_rows(grad_out, address(q0, q1, q2, grad_strides, WIDE), inside, VALUE_DIM, BLOCK_VALUE, True)
    less = tl.load(delta + token, mask=inside, other=0.0)
    base = tl.load(level + token, mask=inside, other=0.0)

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
    total = tl.zeros((QUERIES, BLOCK_DIM), tl.float32)
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
        logits = multiply(q, tl.trans(k), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION, WIDEN) * logit
        if BIAS:
            place = (
                (m0[None, :] - s0[:, None]) * bias_strides[1]
                + (m1[None, :] - s1[:, None]) * bias_strides[2]
                + (m2[None, :] - s2[:, None]) * bias_strides[3]
            )
            logits += tl.load(table + place, mask=inside[:, None], other=0.0).to(tl.float32) * LOG2E
        dp = multiply(do, tl.trans(v), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION, WIDEN)
        ds = tl.exp2(logits - base[:, None]) * (dp - less[:, None])
        total = multiply(ds.to(k.dtype), k, total, PRECISION, WIDEN)

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
        logits = multiply(q, tl.trans(k), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION, WIDEN) * logit
        if BIAS:
            place = (
                (m0[None, :] - s0[:, None]) * bias_strides[1]
                + (m1[None, :] - s1[:, None]) * bias_strides[2]
                + (m2[None, :] - s2[:, None]) * bias_strides[3]
            )
            logits += tl.load(table + place, mask=seen & inside[:, None], other=0.0).to(tl.float32) * LOG2E
        dp = multiply(do, tl.trans(v), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION, WIDEN)
        weights = tl.where(seen, tl.exp2(tl.where(seen, logits - base[:, None], float("-inf"))), 0.0)
        ds = weights * (dp - less[:, None])
        total = multiply(ds.to(k.dtype), k, total, PRECISION, WIDEN)

    if EXTRA:
        extra_key += batch.to(tl.int64) * extra_key_strides[0] + kv_head.to(tl.int64) * extra_key_strides[2]
        extra_value += batch.to(tl.int64) * extra_value_strides[0] + kv_head.to(tl.int64) * extra_value_strides[2]
        for begin in range(0, extra, KEYS):
            other = begin + tl.arange(0, KEYS)
            real = other < extra
            k = load_rows(extra_key, other * extra_key_strides[1], real, HEAD_DIM, BLOCK_DIM, True)
            v = load_rows(extra_value, other * extra_value_strides[1], real, VALUE_DIM, BLOCK_VALUE, True)
            logits = multiply(q, tl.trans(k), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION, WIDEN) * logit
            dp = multiply(do, tl.trans(v), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION, WIDEN)
            weights = tl.exp2(tl.where(real[None, :], logits - base[:, None], float("-inf")))
            ds = weights * (dp - less[:, None])
            total = multiply(ds.to(k.dtype), k, total, PRECISION, WIDEN)

    store_rows(grad_query, token * HEAD_DIM, inside, total * scale, HEAD_DIM, BLOCK_DIM)


@triton.jit
def grad_keys(
    query, key, value, query_box, grad_box, bias, grad_out, delta, level, grad_key, grad_value,
    query_strides, key_strides, value_strides, grad_strides, grad_key_strides, grad_value_strides, bias_strides,
    tiles, rows, stands, columns, list_stride, counts, query_grid, key_grid, steps, bias_low,
    heads, group, scale,
    QUERY_TILE: tl.constexpr, KEY_TILE: tl.constexpr, AXES: tl.constexpr,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    LISTS: tl.constexpr, LAYERED: tl.constexpr, BIAS: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, WIDE: tl.constexpr, BOXED: tl.constexpr,
):  # fmt: skip
    """A program for each tile of keys, batch entry and kv head: it walks over the tiles of queries that see it, for
    each query head of the kv head. ``stands``: the tables of the queries' walk, which say where queries stand."""
    QUERIES: tl.constexpr = QUERY_TILE[0] * QUERY_TILE[1] * QUERY_TILE[2]
    KEYS: tl.constexpr = KEY_TILE[0] * KEY_TILE[1] * KEY_TILE[2]
    ENTRY = 3 if LAYERED else 2
    programs = counts[0] * counts[1] * counts[2]
    program = tl.program_id(0)
    tile = program % programs
    kv_heads = heads // group
    batch = (program // programs) // kv_heads
    kv_head = (program // programs) % kv_heads
    i0 = tile // (counts[1] * counts[2])
    i1 = (tile // counts[2]) % counts[1]
    i2 = tile % counts[2] + (batch * kv_heads + kv_head) * list_stride

    p0, p1, p2 = places(KEY_TILE)
    k0, in0, start0, stop0 = row_axis(tiles[0], rows[0], i0, p0, steps[0])
    k1, in1, start1, stop1 = row_axis(tiles[1], rows[1], i1, p1, steps[1])
    k2, in2, start2, stop2 = row_axis(tiles[2], rows[2], i2, p2, steps[2])
    inside = in0 & in1 & in2
    key += batch.to(tl.int64) * key_strides[0] + kv_head.to(tl.int64) * key_strides[4]
    value += batch.to(tl.int64) * value_strides[0] + kv_head.to(tl.int64) * value_strides[4]
    k = load_rows(key, address(k0, k1, k2, key_strides, WIDE), inside, HEAD_DIM, BLOCK_DIM, True)
    v = load_rows(value, address(k0, k1, k2, value_strides, WIDE), inside, VALUE_DIM, BLOCK_VALUE, True)

    r0, r1, r2 = tiles[0] + i0 * 8, tiles[1] + i1 * 8, tiles[2] + i2 * 8
    o0, o1, o2 = tl.load(r0 + 4), tl.load(r1 + 4), tl.load(r2 + 4)
    v0, v1, v2 = tl.load(r0 + 5), tl.load(r1 + 5), tl.load(r2 + 5)
    b0, b1, b2 = tl.load(r0 + 6), tl.load(r1 + 6), tl.load(r2 + 6)
    f0, f1, f2 = tl.load(r0 + 7), tl.load(r1 + 7), tl.load(r2 + 7)
    c0, c1, c2 = tl.load(r0 + 2), tl.load(r1 + 2), tl.load(r2 + 2)
    q0, q1, q2 = places(QUERY_TILE)
    if LISTS:
        first_full, fulls, first_partial, partials = o2, v2 - o2, b2, f2 - b2
    else:
        first_full, first_partial = 0, 0
        fulls = f0 * f1 * f2
        partials = v0 * v1 * v2 - fulls
    if BIAS:
        s0 = tl.load(rows[0] + k0 * 4 + 2, mask=in0, other=0) - bias_low[0]
        s1 = tl.load(rows[1] + k1 * 4 + 2, mask=in1, other=0) - bias_low[1]
        s2 = tl.load(rows[2] + k2 * 4 + 2, mask=in2, other=0) - bias_low[2]

    logit = scale * LOG2E
    dk = tl.zeros((KEYS, BLOCK_DIM), tl.float32)
    dv = tl.zeros((KEYS, BLOCK_VALUE), tl.float32)
    for member in range(group):
        head = kv_head * group + member
        q_base = query + batch.to(tl.int64) * query_strides[0] + head.to(tl.int64) * query_strides[4]
        do_base = grad_out + batch.to(tl.int64) * grad_strides[0] + head.to(tl.int64) * grad_strides[4]
        row_base = batch.to(tl.int64) * query_grid[0] * query_grid[1] * query_grid[2] * heads + head
        for number in range(fulls):
            if LISTS:
                a0, a1, a2 = 0, 0, tl.load(columns + (first_full + number) * ENTRY)
            else:
                j0, j1, j2 = full_tile(number, f1, f2, AXES)
                a0 = o0 + (b0 + j0) * QUERY_TILE[0]
                a1 = o1 + (b1 + j1) * QUERY_TILE[1]
                a2 = o2 + (b2 + j2) * QUERY_TILE[2]
            m0, m1, m2 = a0 + q0, a1 + q1, a2 + q2
            y0, y1, y2 = (c0 + a0, c1 + a1, c2 + a2) if BOXED else (a0, a1, a2)
            x0, x1, x2 = c0 + m0 * steps[0], c1 + m1 * steps[1], c2 + m2 * steps[2]
            row = row_base + ((x0.to(tl.int64) * query_grid[1] + x1) * query_grid[2] + x2) * heads
            q = load_box(
                q_base, query_box, batch, head, y0, y1, y2, x0, x1, x2, query_strides, query_grid,
                QUERY_TILE, HEAD_DIM, BLOCK_DIM, False, WIDE, BOXED,
            )  # fmt: skip
            do = load_box(
                do_base, grad_box, batch, head, y0, y1, y2, x0, x1, x2, grad_strides, query_grid,
                QUERY_TILE, VALUE_DIM, BLOCK_VALUE, False, WIDE, BOXED,
            )  # fmt: skip
            base = tl.load(level + row)
            less = tl.load(delta + row)
            logits = multiply(k, tl.trans(q), tl.zeros((KEYS, QUERIES), tl.float32), PRECISION, WIDEN) * logit
            if BIAS:
                t0 = tl.load(stands[0] + x0 * 4 + 2)
                t1 = tl.load(stands[1] + x1 * 4 + 2)
                t2 = tl.load(stands[2] + x2 * 4 + 2)
                place = (
                    (s0[:, None] - t0[None, :]) * bias_strides[1]
                    + (s1[:, None] - t1[None, :]) * bias_strides[2]
                    + (s2[:, None] - t2[None, :]) * bias_strides[3]
                )
                table = bias + head * bias_strides[0]
                logits += tl.load(table + place, mask=inside[:, None], other=0.0).to(tl.float32) * LOG2E
            weights = tl.exp2(logits - base[None, :])
            dv = multiply(weights.to(do.dtype), do, dv, PRECISION, WIDEN)
            dp = multiply(v, tl.trans(do), tl.zeros((KEYS, QUERIES), tl.float32), PRECISION, WIDEN)
            ds = weights * (dp - less[None, :])
            dk = multiply(ds.to(q.dtype), q, dk, PRECISION, WIDEN)

        for number in range(partials):
            if LISTS:
                entry = columns + (first_partial + number) * ENTRY
                a0, a1, a2 = 0, 0, tl.load(entry)
                last2 = tl.minimum(stop2, tl.load(entry + 1))
            else:
                j0, j1, j2 = partial_tile(number, v0, v1, v2, b0, b1, b2, f0, f1, f2, AXES)
                a0, a1, a2 = o0 + j0 * QUERY_TILE[0], o1 + j1 * QUERY_TILE[1], o2 + j2 * QUERY_TILE[2]
                last2 = stop2
            m0, m1, m2 = a0 + q0, a1 + q1, a2 + q2
            y0, y1, y2 = (c0 + a0, c1 + a1, c2 + a2) if BOXED else (a0, a1, a2)
            x0, x1, x2 = c0 + m0 * steps[0], c1 + m1 * steps[1], c2 + m2 * steps[2]
            real = on_grid(x0, x1, x2, query_grid)
            row = row_base + ((x0.to(tl.int64) * query_grid[1] + x1) * query_grid[2] + x2) * heads
            q = load_box(
                q_base, query_box, batch, head, y0, y1, y2, x0, x1, x2, query_strides, query_grid,
                QUERY_TILE, HEAD_DIM, BLOCK_DIM, True, WIDE, BOXED,
            )  # fmt: skip
            do = load_box(
                do_base, grad_box, batch, head, y0, y1, y2, x0, x1, x2, grad_strides, query_grid,
                QUERY_TILE, VALUE_DIM, BLOCK_VALUE, True, WIDE, BOXED,
            )  # fmt: skip
            base = tl.load(level + row, mask=real, other=0.0)
            less = tl.load(delta + row, mask=real, other=0.0)
            if LAYERED:
                stand = stands[2] + (tl.load(entry + 2) * query_grid[2] + x2) * 4
                begin2 = tl.load(stand, mask=real, other=0)
                end2 = tl.load(stand + 1, mask=real, other=0)
                seen = (k2[:, None] >= begin2[None, :]) & (k2[:, None] < end2[None, :])
            else:
                seen = seen_pairs(m0, m1, m2, start0, start1, start2, stop0, stop1, last2, AXES)
            logits = multiply(k, tl.trans(q), tl.zeros((KEYS, QUERIES), tl.float32), PRECISION, WIDEN) * logit
            if BIAS:
                t0 = tl.load(stands[0] + x0 * 4 + 2, mask=real, other=0)
                t1 = tl.load(stands[1] + x1 * 4 + 2, mask=real, other=0)
                t2 = tl.load(stands[2] + x2 * 4 + 2, mask=real, other=0)
                place = (
                    (s0[:, None] - t0[None, :]) * bias_strides[1]
                    + (s1[:, None] - t1[None, :]) * bias_strides[2]
                    + (s2[:, None] - t2[None, :]) * bias_strides[3]
                )
                table = bias + head * bias_strides[0]
                logits += tl.load(table + place, mask=seen & real[None, :], other=0.0).to(tl.float32) * LOG2E
            weights = tl.exp2(tl.where(seen, logits - base[None, :], float("-inf")))
            dv = multiply(weights.to(do.dtype), do, dv, PRECISION, WIDEN)
            dp = multiply(v, tl.trans(do), tl.zeros((KEYS, QUERIES), tl.float32), PRECISION, WIDEN)
            ds = weights * (dp - less[None, :])
            dk = multiply(ds.to(q.dtype), q, dk, PRECISION, WIDEN)

    grad_key += batch.to(tl.int64) * grad_key_strides[0] + kv_head.to(tl.int64) * grad_key_strides[4]
    grad_value += batch.to(tl.int64) * grad_value_strides[0] + kv_head.to(tl.int64) * grad_value_strides[4]
    store_rows(grad_key, address(k0, k1, k2, grad_key_strides, WIDE), inside, dk * scale, HEAD_DIM, BLOCK_DIM)
    store_rows(grad_value, address(k0, k1, k2, grad_value_strides, WIDE), inside, dv, VALUE_DIM, BLOCK_VALUE)


@triton.jit
def grad_bias(
    query, key, value, bias, grad_out, delta, level, partial,
    query_strides, key_strides, value_strides, grad_strides, bias_strides,
    rows, query_grid, key_grid, steps, bias_low, bias_shape,
    heads, group, tokens, share, scale,
    HEAD_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """A program for each offset, head and share of the queries (all batch entries in a row): it sums ``dS`` over the
    queries' pairs at that offset into ``partial [shares, heads, offsets]``."""
    offset = tl.program_id(0)
    head = tl.program_id(1)
    part = tl.program_id(2)
    kv_head = head // group
    d2 = offset % bias_shape[2]
    d1 = (offset // bias_shape[2]) % bias_shape[1]
    d0 = offset // (bias_shape[2] * bias_shape[1])
    extra = tl.load(bias + head * bias_strides[0] + d0 * bias_strides[1] + d1 * bias_strides[2] + d2 * bias_strides[3])
    query += head.to(tl.int64) * query_strides[4]
    grad_out += head.to(tl.int64) * grad_strides[4]
    key += kv_head.to(tl.int64) * key_strides[4]
    value += kv_head.to(tl.int64) * value_strides[4]
    total = tl.zeros((ROWS,), tl.float32)
    for begin in range(0, share, ROWS):
        place = begin + tl.arange(0, ROWS)
        token = part.to(tl.int64) * share + place
        inside = (place < share) & (token < tokens)
        q2 = token % query_grid[2]
        q1 = (token // query_grid[2]) % query_grid[1]
        q0 = (token // (query_grid[2] * query_grid[1])) % query_grid[0]
        batch = token // (query_grid[2] * query_grid[1] * query_grid[0])
        row0, row1, row2 = rows[0] + q0 * 4, rows[1] + q1 * 4, rows[2] + q2 * 4
        m0 = tl.load(row0 + 2, mask=inside, other=0) + bias_low[0] + d0
        m1 = tl.load(row1 + 2, mask=inside, other=0) + bias_low[1] + d1
        m2 = tl.load(row2 + 2, mask=inside, other=0) + bias_low[2] + d2
        seen = (m0 >= tl.load(row0, mask=inside, other=0)) & (m0 < tl.load(row0 + 1, mask=inside, other=0))
        seen &= (m1 >= tl.load(row1, mask=inside, other=0)) & (m1 < tl.load(row1 + 1, mask=inside, other=0))
        seen &= (m2 >= tl.load(row2, mask=inside, other=0)) & (m2 < tl.load(row2 + 1, mask=inside, other=0))
        x0 = tl.load(row0 + 3, mask=inside, other=0) + m0 * steps[0]
        x1 = tl.load(row1 + 3, mask=inside, other=0) + m1 * steps[1]
        x2 = tl.load(row2 + 3, mask=inside, other=0) + m2 * steps[2]
        real = seen & on_grid(x0, x1, x2, key_grid)
        q = load_rows(
            query, batch * query_strides[0] + address(q0, q1, q2, query_strides, True), seen, HEAD_DIM, BLOCK_DIM, True
        )
        do = load_rows(
            grad_out,
            batch * grad_strides[0] + address(q0, q1, q2, grad_strides, True),
            seen,
            VALUE_DIM,
            BLOCK_VALUE,
            True,
        )
        k = load_rows(
            key, batch * key_strides[0] + address(x0, x1, x2, key_strides, True), real, HEAD_DIM, BLOCK_DIM, True
        )
        v = load_rows(
            value,
            batch * value_strides[0] + address(x0, x1, x2, value_strides, True),
            real,
            VALUE_DIM,
            BLOCK_VALUE,
            True,
        )
        base = tl.load(level + token * heads + head, mask=seen, other=0.0)
        less = tl.load(delta + token * heads + head, mask=seen, other=0.0)
        logits = tl.sum(q.to(tl.float32) * k.to(tl.float32), 1) * scale + extra
        dp = tl.sum(do.to(tl.float32) * v.to(tl.float32), 1)
        total += tl.exp2(tl.where(seen, logits * LOG2E - base, float("-inf"))) * (dp - less)
    offsets = bias_shape[0] * bias_shape[1] * bias_shape[2]
    tl.store(partial + (part * heads + head) * offsets + offset, tl.sum(total, 0))
