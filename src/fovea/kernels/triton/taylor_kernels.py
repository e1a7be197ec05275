# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false, reportInvalidTypeForm=false
"""Kernels of second-order Taylor attention.

The sequence is cut in chunks. Inside a chunk pairs are computed; what lies before it is a state of three orders, with
``x`` the keys: ``sum u`` (order 0), ``sum x u^T`` (order 1) and ``sum x_i x u^T`` for each feature ``i`` (order 2), and
the same sums of the weights ``w`` for the normaliser. The feature map is never in memory. States of all chunks are
summed in parallel and then added up from chunk to chunk in place; backwards the state is that of the queries, with the
gradients in place of the values, and is added up from the end.

A state has ``f^2 + f + 1`` rows: row ``i f + j`` of order 2, then order 1, then order 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fovea.kernels.triton.tile import load_rows, multiply, store_rows


@triton.jit
def chunk_states(
    x, u, w, states, masses, tokens, heads, chunks, scale,
    FEATURES: tl.constexpr, DIM: tl.constexpr, BLOCK_FEATURES: tl.constexpr, BLOCK_DIM: tl.constexpr,
    CHUNK: tl.constexpr, TOKENS: tl.constexpr, WEIGHTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program for each chunk, head and feature ``i``; ``i == FEATURES`` is orders 1 and 0."""
    chunk = tl.program_id(0)
    head = tl.program_id(1) % heads
    batch = tl.program_id(1) // heads
    feature = tl.program_id(2)
    base = batch.to(tl.int64) * tokens
    second = feature < FEATURES
    total = tl.zeros((BLOCK_FEATURES, BLOCK_DIM), tl.float32)
    mass = tl.zeros((BLOCK_FEATURES,), tl.float32)
    sum_u = tl.zeros((BLOCK_DIM,), tl.float32)
    sum_w = tl.zeros((1,), tl.float32)
    for begin in range(0, CHUNK, TOKENS):
        token = chunk * CHUNK + begin + tl.arange(0, TOKENS)
        inside = token < tokens
        row = (base + token) * heads + head
        r = load_rows(x, row * FEATURES, inside, FEATURES, BLOCK_FEATURES, True).to(tl.float32) * scale
        c = tl.load(x + row * FEATURES + tl.minimum(feature, FEATURES - 1), mask=inside, other=0.0).to(tl.float32)
        c = tl.where(second, c * scale, 1.0)
        values = load_rows(u, row * DIM, inside, DIM, BLOCK_DIM, True).to(tl.float32)
        weight = tl.load(w + row, mask=inside, other=0.0) if WEIGHTED else inside.to(tl.float32)
        scaled = r * c[:, None]
        total = multiply(tl.trans(scaled), values, total, PRECISION, False)
        mass += tl.sum(scaled * weight[:, None], 0)
        sum_u += tl.sum(values, 0)
        sum_w += tl.sum(weight, 0)
    SIZE: tl.constexpr = FEATURES * FEATURES + FEATURES + 1
    where = (tl.program_id(1).to(tl.int64) * chunks + chunk) * SIZE
    lane = tl.arange(0, BLOCK_FEATURES)
    place = where + feature * FEATURES + lane
    store_rows(states, place * DIM, lane < FEATURES, total, DIM, BLOCK_DIM)
    tl.store(masses + place, mass, mask=lane < FEATURES)
    if feature == FEATURES:
        column = tl.arange(0, BLOCK_DIM)
        tl.store(states + (where + SIZE - 1) * DIM + column, sum_u, mask=column < DIM)
        tl.store(masses + where + SIZE - 1 + tl.arange(0, 1), sum_w)


@triton.jit
def add_up(states, chunks, size, BLOCK: tl.constexpr, REVERSE: tl.constexpr):
    """In place, ``[heads, chunks, size]``: a chunk's state becomes the sum of those before (``REVERSE``: after) it."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    base = states + tl.program_id(1).to(tl.int64) * chunks * size + place
    total = tl.zeros((BLOCK,), tl.float32)
    for number in range(chunks):
        chunk = chunks - 1 - number if REVERSE else number
        at = base + chunk * size
        mine = tl.load(at, mask=inside, other=0.0)
        tl.store(at, total, mask=inside)
        total += mine


@triton.jit
def outputs(
    query, key, value, states, masses, out, norm, tokens, heads, chunks, scale, eps,
    FEATURES: tl.constexpr, DIM: tl.constexpr, BLOCK_FEATURES: tl.constexpr, BLOCK_DIM: tl.constexpr,
    CHUNK: tl.constexpr, TOKENS: tl.constexpr, NORMALISED: tl.constexpr, PRECISION: tl.constexpr,
    STATE_PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """A program for each block of tokens and head."""
    block = tl.program_id(0)
    head = tl.program_id(1) % heads
    base = (tl.program_id(1) // heads).to(tl.int64) * tokens
    token = block * TOKENS + tl.arange(0, TOKENS)
    inside = token < tokens
    row = (base + token) * heads + head
    q = load_rows(query, row * FEATURES, inside, FEATURES, BLOCK_FEATURES, True)
    scaled = q.to(tl.float32) * scale
    chunk = block * TOKENS // CHUNK
    SIZE: tl.constexpr = FEATURES * FEATURES + FEATURES + 1
    where = (tl.program_id(1).to(tl.int64) * chunks + chunk) * SIZE
    lane = tl.arange(0, BLOCK_FEATURES)
    column = tl.arange(0, BLOCK_DIM)
    real = lane < FEATURES
    total = tl.zeros((TOKENS, BLOCK_DIM), tl.float32)
    mass = tl.zeros((TOKENS,), tl.float32)
    for feature in range(FEATURES):
        c = tl.load(query + row * FEATURES + feature, mask=inside, other=0.0).to(tl.float32) * (scale * 0.5)
        place = where + feature * FEATURES + lane
        state = load_rows(states, place * DIM, real, DIM, BLOCK_DIM, True)
        ones = tl.load(masses + place, mask=real, other=0.0)
        total = multiply(scaled * c[:, None], state, total, STATE_PRECISION, False)
        mass += c * tl.sum(scaled * ones[None, :], 1)
    place = where + FEATURES * FEATURES + lane
    total = multiply(scaled, load_rows(states, place * DIM, real, DIM, BLOCK_DIM, True), total, STATE_PRECISION, False)
    mass += tl.sum(scaled * tl.load(masses + place, mask=real, other=0.0)[None, :], 1)
    total += tl.load(states + (where + SIZE - 1) * DIM + column, mask=column < DIM, other=0.0)[None, :]
    mass += tl.load(masses + where + SIZE - 1)
    for begin in range(chunk * CHUNK, (block + 1) * TOKENS, TOKENS):
        other = begin + tl.arange(0, TOKENS)
        there = other < tokens
        k_row = (base + other) * heads + head
        k = load_rows(key, k_row * FEATURES, there, FEATURES, BLOCK_FEATURES, True)
        v = load_rows(value, k_row * DIM, there, DIM, BLOCK_DIM, True)
        s = multiply(q, tl.trans(k), tl.zeros((TOKENS, TOKENS), tl.float32), PRECISION, WIDEN) * scale
        a = tl.where(other[None, :] <= token[:, None], 1 + s + 0.5 * s * s, 0.0)
        mass += tl.sum(a, 1)
        total = multiply(a.to(v.dtype), v, total, PRECISION, WIDEN)
    mass = mass + eps if NORMALISED else tl.full((TOKENS,), 1.0, tl.float32)
    store_rows(out, row * DIM, inside, total / mass[:, None], DIM, BLOCK_DIM)
    tl.store(norm + row, mass, mask=inside)


@triton.jit
def grad_queries(
    query, key, value, grad, grad_norm, states, masses, grad_query, tokens, heads, chunks, scale,
    FEATURES: tl.constexpr, DIM: tl.constexpr, BLOCK_FEATURES: tl.constexpr, BLOCK_DIM: tl.constexpr,
    CHUNK: tl.constexpr, TOKENS: tl.constexpr, STATE_PRECISION: tl.constexpr,
):  # fmt: skip
    """``dq``; ``grad`` and ``grad_norm`` are the gradients of the sums over and under the line of the fraction."""
    block = tl.program_id(0)
    head = tl.program_id(1) % heads
    base = (tl.program_id(1) // heads).to(tl.int64) * tokens
    token = block * TOKENS + tl.arange(0, TOKENS)
    inside = token < tokens
    row = (base + token) * heads + head
    q = load_rows(query, row * FEATURES, inside, FEATURES, BLOCK_FEATURES, True).to(tl.float32)
    dn = load_rows(grad, row * DIM, inside, DIM, BLOCK_DIM, True)
    dz = tl.load(grad_norm + row, mask=inside, other=0.0)
    chunk = block * TOKENS // CHUNK
    where = (tl.program_id(1).to(tl.int64) * chunks + chunk) * (FEATURES * FEATURES + FEATURES + 1)
    lane = tl.arange(0, BLOCK_FEATURES)
    real = lane < FEATURES
    total = tl.zeros((TOKENS, BLOCK_FEATURES), tl.float32)
    for feature in range(FEATURES + 1):
        second = feature < FEATURES
        c = tl.load(query + row * FEATURES + tl.minimum(feature, FEATURES - 1), mask=inside, other=0.0).to(tl.float32)
        c = tl.where(second, c * scale, 1.0)
        place = where + feature * FEATURES + lane
        state = load_rows(states, place * DIM, real, DIM, BLOCK_DIM, True)
        ones = tl.load(masses + place, mask=real, other=0.0)
        total = multiply(dn * c[:, None], tl.trans(state), total, STATE_PRECISION, False)
        total += (c * dz)[:, None] * ones[None, :]
    for begin in range(chunk * CHUNK, (block + 1) * TOKENS, TOKENS):
        other = begin + tl.arange(0, TOKENS)
        there = other < tokens
        k_row = (base + other) * heads + head
        k = load_rows(key, k_row * FEATURES, there, FEATURES, BLOCK_FEATURES, True).to(tl.float32)
        v = load_rows(value, k_row * DIM, there, DIM, BLOCK_DIM, True).to(tl.float32)
        zeros = tl.zeros((TOKENS, TOKENS), tl.float32)
        s = multiply(q, tl.trans(k), zeros, STATE_PRECISION, False) * scale
        da = multiply(dn, tl.trans(v), zeros, STATE_PRECISION, False) + dz[:, None]
        ds = tl.where(other[None, :] <= token[:, None], da * (1 + s), 0.0)
        total = multiply(ds, k, total, STATE_PRECISION, False)
    store_rows(grad_query, row * FEATURES, inside, total * scale, FEATURES, BLOCK_FEATURES)


@triton.jit
def grad_keys(
    query, key, value, grad, grad_norm, states, masses, grad_key, grad_value, tokens, heads, chunks, scale,
    FEATURES: tl.constexpr, DIM: tl.constexpr, BLOCK_FEATURES: tl.constexpr, BLOCK_DIM: tl.constexpr,
    CHUNK: tl.constexpr, TOKENS: tl.constexpr, STATE_PRECISION: tl.constexpr,
):  # fmt: skip
    """``dk`` and ``dv``; ``states`` are those of the queries of later chunks (queries scaled)."""
    block = tl.program_id(0)
    head = tl.program_id(1) % heads
    base = (tl.program_id(1) // heads).to(tl.int64) * tokens
    token = block * TOKENS + tl.arange(0, TOKENS)
    inside = token < tokens
    row = (base + token) * heads + head
    k = load_rows(key, row * FEATURES, inside, FEATURES, BLOCK_FEATURES, True).to(tl.float32)
    v = load_rows(value, row * DIM, inside, DIM, BLOCK_DIM, True).to(tl.float32)
    chunk = block * TOKENS // CHUNK
    SIZE: tl.constexpr = FEATURES * FEATURES + FEATURES + 1
    where = (tl.program_id(1).to(tl.int64) * chunks + chunk) * SIZE
    lane = tl.arange(0, BLOCK_FEATURES)
    column = tl.arange(0, BLOCK_DIM)
    real = lane < FEATURES
    dk = tl.zeros((TOKENS, BLOCK_FEATURES), tl.float32)
    dv = tl.zeros((TOKENS, BLOCK_DIM), tl.float32)
    for feature in range(FEATURES + 1):
        second = feature < FEATURES
        c = tl.load(key + row * FEATURES + tl.minimum(feature, FEATURES - 1), mask=inside, other=0.0).to(tl.float32)
        c = tl.where(second, c, 1.0)
        place = where + feature * FEATURES + lane
        state = load_rows(states, place * DIM, real, DIM, BLOCK_DIM, True)
        ones = tl.load(masses + place, mask=real, other=0.0)
        half = tl.where(second, 0.5, 1.0)
        dv = multiply(k * (c * half)[:, None], state, dv, STATE_PRECISION, False)
        dk = multiply(v * c[:, None], tl.trans(state), dk, STATE_PRECISION, False)
        dk += c[:, None] * ones[None, :]
    dv += tl.load(states + (where + SIZE - 1) * DIM + column, mask=column < DIM, other=0.0)[None, :]
    end = tl.minimum((chunk + 1) * CHUNK, tokens)
    for begin in range(block * TOKENS, end, TOKENS):
        other = begin + tl.arange(0, TOKENS)
        there = other < tokens
        q_row = (base + other) * heads + head
        q = load_rows(query, q_row * FEATURES, there, FEATURES, BLOCK_FEATURES, True).to(tl.float32) * scale
        dn = load_rows(grad, q_row * DIM, there, DIM, BLOCK_DIM, True)
        dz = tl.load(grad_norm + q_row, mask=there, other=0.0)
        zeros = tl.zeros((TOKENS, TOKENS), tl.float32)
        s = multiply(k, tl.trans(q), zeros, STATE_PRECISION, False)
        seen = (other[None, :] >= token[:, None]) & there[None, :]
        a = tl.where(seen, 1 + s + 0.5 * s * s, 0.0)
        dv = multiply(a, dn, dv, STATE_PRECISION, False)
        da = multiply(v, tl.trans(dn), zeros, STATE_PRECISION, False) + dz[None, :]
        dk = multiply(tl.where(seen, da * (1 + s), 0.0), q, dk, STATE_PRECISION, False)
    store_rows(grad_key, row * FEATURES, inside, dk, FEATURES, BLOCK_FEATURES)
    store_rows(grad_value, row * DIM, inside, dv, DIM, BLOCK_DIM)


@triton.jit
def step(
    query, key, value, state, mass, out, scale, eps,
    FEATURES: tl.constexpr, DIM: tl.constexpr, BLOCK_FEATURES: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One token: a program for each batch entry and head takes it into the state and reads its output."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK_FEATURES)
    column = tl.arange(0, BLOCK_DIM)
    real, wide = lane < FEATURES, column < DIM
    k = tl.load(key + row * FEATURES + lane, mask=real, other=0.0).to(tl.float32)
    q = tl.load(query + row * FEATURES + lane, mask=real, other=0.0).to(tl.float32) * scale
    v = tl.load(value + row * DIM + column, mask=wide, other=0.0).to(tl.float32)
    SIZE: tl.constexpr = FEATURES * FEATURES + FEATURES + 1
    total = tl.zeros((BLOCK_DIM,), tl.float32)
    norm = 0.0
    for feature in range(FEATURES + 1):
        second = feature < FEATURES
        at = row * FEATURES + tl.minimum(feature, FEATURES - 1)
        kc = tl.where(second, tl.load(key + at).to(tl.float32), 1.0)
        qc = tl.where(second, tl.load(query + at).to(tl.float32) * (scale * 0.5), 1.0)
        place = row * SIZE + feature * FEATURES + lane
        cells = state + place[:, None] * DIM + column[None, :]
        inside = real[:, None] & wide[None, :]
        new = tl.load(cells, mask=inside, other=0.0) + (k * kc)[:, None] * v[None, :]
        tl.store(cells, new, mask=inside)
        ones = tl.load(mass + place, mask=real, other=0.0) + k * kc
        tl.store(mass + place, ones, mask=real)
        total += tl.sum((q * qc)[:, None] * new, 0)
        norm += tl.sum(q * qc * ones, 0)
    last = row * SIZE + SIZE - 1
    sum_v = tl.load(state + last * DIM + column, mask=wide, other=0.0) + v
    tl.store(state + last * DIM + column, sum_v, mask=wide)
    count = tl.load(mass + last) + 1.0
    tl.store(mass + last, count)
    total = (total + sum_v) / (norm + count + eps)
    tl.store(out + row * DIM + column, total.to(out.dtype.element_ty), mask=wide)
