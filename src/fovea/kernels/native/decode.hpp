// Few queries of a line against many keys: nothing is packed. Keys and values are read where they lie, once for all query
// heads of a kv head, in ranges of keys that several threads may take; what the ranges found is joined by the logarithm of
// its sum. The ranges depend on the problem alone, so that the result does not depend on the number of threads.
#pragma once
#include <utility>

#include "work.hpp"

namespace FOVEA_VARIANT {
namespace {

constexpr int TILE = 64;  // keys whose weights are held at once

struct Decode {
    Work work;
    const Range *range;
    float *queries, *weights, *keys, *values, *sums, *largest, *total;
};

int64_t carve_decode(Decode &d, const Plan *p, char *memory) {
    Carver c{memory, 0};
    Work &w = d.work;
    w.plan = p;
    w.backward = false;
    w.key_width = rounded(p->head_dim, WIDE);
    w.value_width = rounded(p->value_dim, WIDE);
    const int64_t widest = most(w.key_width, w.value_width);
    w.row = c.take<float>(4 * widest + most(p->head_dim, p->value_dim));
    w.sources = c.take<float>(4 * widest);
    d.queries = c.take<float>(MOST_QUERIES * w.key_width);
    d.weights = c.take<float>(MOST_QUERIES * CHUNK + 16);
    d.keys = c.take<float>(TILE * w.key_width);
    d.values = c.take<float>(TILE * w.value_width);
    return c.used;
}

// Adds the two halves of each run of S lanes: runs of S / 2 lanes, those of a and of b in turn.
template <int N, int S, int... L>
ALWAYS_INLINE typename Lanes<N>::F halve(typename Lanes<N>::F a, typename Lanes<N>::F b, std::integer_sequence<int, L...>) {
    return __builtin_shufflevector(a, b, (L / (S / 2) % 2 * N + L / S * S + L % (S / 2))...) +
           __builtin_shufflevector(a, b, (L / (S / 2) % 2 * N + L / S * S + L % (S / 2) + S / 2)...);
}

// Lane i of the result is the sum of the lanes of sums[i].
template <int N, int S = N> ALWAYS_INLINE typename Lanes<N>::F sum_each(typename Lanes<N>::F *sums) {
    if constexpr (S == 1) {
        return sums[0];
    } else {
        UNROLL for (int i = 0; i < S / 2; ++i)
            sums[i] = halve<N, S>(sums[i], sums[i + S / 2], std::make_integer_sequence<int, N>{});
        return sum_each<N, S / 2>(sums);
    }
}

// out[i] = query . key i, for WIDE keys that lie `apart` floats from each other.
void products(const float *query, const float *key, int64_t apart, int64_t width, float *out) {
    Wide sum[WIDE] = {};
    for (int64_t c = 0; c < width; c += WIDE) {
        const Wide q = load<Wide>(query + c);
        UNROLL for (int i = 0; i < WIDE; ++i) sum[i] += q * load<Wide>(key + i * apart + c);
    }
    store(out, sum_each<WIDE>(sum));
}

// Rows of keys or values: where they lie, or a copy in whole vectors, zeros in the place of keys that are not there.
struct Rows {
    const float *data;
    int64_t apart;
};

Rows rows_at(Decode &d, const Tensor &t, int x, int keys, bool extra, int channels, int64_t width, bool vectors, float *copy) {
    const Plan *p = d.work.plan;
    const ClassAxis &a = d.work.cls->axis[2];
    const int64_t apart = extra ? t.axis[0] : a.step * t.axis[2];
    const int64_t first = d.work.batch * t.batch + d.work.kv_head * t.head + (extra ? 0 : a.first_key * t.axis[2]);
    const bool all = extra || (real(a, x) && real(a, x + keys - 1));
    if (p->dtype == FOVEA_FLOAT32 && all && channels % WIDE == 0 && (!vectors || keys % WIDE == 0))
        return Rows{(const float *)(t.data + (first + x * apart) * 4), apart};
    const int padded = (int)rounded(keys, WIDE);
    for (int i = 0; i < padded; ++i) {
        float *row = copy + i * width;
        const bool here = i < keys && (extra || real(a, x + i));
        if (here) read_row(p->dtype, t.data, first + (x + i) * apart, channels, row);
        for (int64_t c = here ? channels : 0; c < width; ++c) row[c] = 0;
    }
    return Rows{copy, width};
}

void decode_tile(Decode &d, int x, int keys, bool extra) {
    Work &w = d.work;
    const Plan *p = w.plan;
    const ClassAxis &a = w.cls->axis[2];
    const int rows = d.range->queries * p->group, vectors = (keys + WIDE - 1) / WIDE;
    const Tensor &kt = extra ? p->extra_key : p->key, &vt = extra ? p->extra_value : p->value;
    const int64_t kw = w.key_width, vw = w.value_width;
    Rows key = rows_at(d, kt, x, keys / WIDE * WIDE, extra, p->head_dim, kw, true, d.keys), rest = key;
    if (keys % WIDE) {
        const int whole = keys / WIDE * WIDE;
        rest = rows_at(d, kt, x + whole, keys - whole, extra, p->head_dim, kw, true, d.keys + whole * kw);
    }
    const Rows value = rows_at(d, vt, x, keys, extra, p->value_dim, vw, false, d.values);
    const int ahead = value.data == d.values ? 0 : TILE;
    for (int v = 0; v < vectors; ++v) {
        const bool last = (v + 1) * WIDE > keys;
        const float *at = last ? rest.data : key.data + v * WIDE * key.apart;
        for (int r = 0; r < rows; ++r)
            products(d.queries + r * kw, at, last ? rest.apart : key.apart, kw, d.weights + r * CHUNK + v * WIDE);
        if (ahead && !last)
            for (int i = v * WIDE; i < (v + 1) * WIDE; ++i) {
                const char *k = (const char *)(key.data + (i + ahead) * key.apart), *u = (const char *)(value.data + i * value.apart);
                for (int64_t b = 0; b < kw * 4; b += 64) __builtin_prefetch(k + b);
                for (int64_t b = 0; b < vw * 4; b += 64) __builtin_prefetch(u + b);
            }
    }
    for (int r = 0; r < rows; ++r) {
        const int i = d.range->query + r / p->group, head = w.kv_head * p->group + r % p->group;
        float *row = d.weights + r * CHUNK;
        const int from = extra ? 0 : most(0, a.start[i] - x), to = extra ? keys : least(keys, a.stop[i] - x);
        if (p->bias && !extra) {
            const ClassAxis *up = w.cls->axis;  // its only key stands at 0
            const int64_t above = (-up[0].position[0] - p->bias_low[0]) * p->bias_count[1] - up[1].position[0] - p->bias_low[1];
            const float *bias = p->bias + head * p->bias_head + above * p->bias_pitch + p->bias_margin + x - a.position[i] -
                                p->bias_low[2];
            for (int k = from; k < to; ++k) row[k] += bias[k];
        }
        for (int k = 0; k < least(from, vectors * WIDE); ++k) row[k] = -INFINITY;
        for (int k = most(to, 0); k < vectors * WIDE; ++k) row[k] = -INFINITY;
        Wide high = splat<Wide>(-INFINITY);
        for (int v = 0; v < vectors; ++v) high = larger(load<Wide>(row + v * WIDE), high);
        const float before = d.largest[r], found = lane_max<WIDE>(high), now = found > before ? found : before;
        const float shift = now == -INFINITY ? 0 : now;
        Wide sum{};
        for (int v = 0; v < vectors; ++v) {
            const Wide e = exp2<WIDE>(load<Wide>(row + v * WIDE) - shift);
            sum += e;
            store(row + v * WIDE, e);
        }
        const float decay = before == -INFINITY ? 0 : ::exp2f(before - shift);
        d.total[r] = d.total[r] * decay + lane_sum<WIDE>(sum);
        d.largest[r] = now;
        if (decay != 1 && before != -INFINITY) {
            float *o = d.sums + r * vw;
            for (int64_t c = 0; c < vw; c += WIDE) store(o + c, load<Wide>(o + c) * decay);
        }
    }
    const Piece piece{value.data, value.apart, keys, 0, -1, 0, 0, 1};
    weighted(d.weights, &piece, 1, vw, 0, rows, d.sums);
}

// Calls visit(first key, keys, extra) for each run of keys that the queries of a range see.
template <class Visit> void each_run(const Plan *p, const Range &range, Visit visit) {
    if (const fovea_blocks *t = p->blocks) {
        const int64_t *span = t->indptr + (t->position + range.query) / t->size - t->position / t->size;
        for (int64_t i = span[0]; i < span[1]; ++i)
            visit(t->index[i] * t->size, least(t->size, t->keys - t->index[i] * t->size), false);
    } else {
        visit((int64_t)range.low, (int64_t)(range.high - range.low), false);
    }
    visit((int64_t)0, (int64_t)p->extra, true);
}

int64_t decode_scratch(const Plan *p) {
    Decode d;
    return carve_decode(d, p, nullptr);
}

int64_t partial_floats(const Plan *p) { return MOST_QUERIES * (rounded(p->value_dim, WIDE) + 2); }

void decode(const Plan *p, const Range *range, void *memory, float *partial) {
    Decode d;
    carve_decode(d, p, (char *)memory);
    Work &w = d.work;
    d.range = range;
    d.sums = partial;
    d.largest = partial + MOST_QUERIES * w.value_width;
    d.total = d.largest + MOST_QUERIES;
    w.cls = p->cls + range->cls;
    w.batch = range->batch;
    w.kv_head = range->kv_head;
    w.z = 0;
    const float scale = p->scale * LOG2E;
    for (int r = 0; r < range->queries * p->group; ++r) {
        float *q = d.queries + r * w.key_width;
        for (int64_t c = 0; c < w.key_width; ++c) q[c] = 0;
        const int64_t at = query_place(w, p->query, 0, range->query + r / p->group, w.kv_head * p->group + r % p->group);
        read_row(p->dtype, p->query.data, at, p->head_dim, q);
        for (int c = 0; c < p->head_dim; ++c) q[c] *= scale;
        for (int64_t c = 0; c < w.value_width; ++c) d.sums[r * w.value_width + c] = 0;
        d.largest[r] = -INFINITY;
        d.total[r] = 0;
    }
    int64_t at = 0;
    each_run(p, *range, [&](int64_t x, int64_t keys, bool extra) {
        const int64_t to = least(range->to - at, keys);
        for (int64_t k = most(range->from - at, (int64_t)0); k < to; k += TILE)
            decode_tile(d, (int)(x + k), (int)least(to - k, (int64_t)TILE), extra);
        at += keys;
    });
}

// Joins the partial results of ranges of keys, in their order.
void join(const Plan *p, const Range *range, int parts, const float *partials, void *memory) {
    Decode d;
    carve_decode(d, p, (char *)memory);
    Work &w = d.work;
    w.cls = p->cls + range->cls;
    w.batch = range->batch;
    w.kv_head = range->kv_head;
    w.z = 0;
    const int64_t size = partial_floats(p), vw = w.value_width;
    float *row = d.values;
    for (int r = 0; r < range->queries * p->group; ++r) {
        const int x = range->query + r / p->group;
        w.head = w.kv_head * p->group + r % p->group;
        float largest = -INFINITY, total = 0, lse = -INFINITY;
        for (int i = 0; i < parts; ++i) largest = most(largest, partials[i * size + MOST_QUERIES * vw + r]);
        for (int64_t c = 0; c < vw; ++c) row[c] = 0;
        for (int i = 0; i < parts; ++i) {
            const float *sums = partials + i * size + r * vw, *state = partials + i * size + MOST_QUERIES * vw + r;
            const float factor = state[0] == -INFINITY ? 0 : ::exp2f(state[0] - largest);
            total += state[MOST_QUERIES] * factor;
            for (int64_t c = 0; c < vw; ++c) row[c] += sums[c] * factor;
        }
        if (total != 0) {
            const float inverse = 1 / total;
            for (int64_t c = 0; c < vw; ++c) row[c] *= inverse;
            lse = (largest + log2f(total)) * LN2;
        }
        if (not_finite(row, p->value_dim) || lse != lse) exact_forward(w, 0, x, row, &lse);
        write_row(p->dtype, p->out.data, query_place(w, p->out, 0, x, w.head), p->value_dim, row);
        p->lse[lse_place(w, 0, x, w.head)] = lse;
    }
}

}  // namespace
}  // namespace FOVEA_VARIANT
