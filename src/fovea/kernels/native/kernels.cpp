// Local attention, forward and backward, for one instruction set. Compiled once for each variant.
//
// A block of queries (a few rows x a few columns of the grid) meets its keys in panels: rows of keys, transposed so that
// keys lie in vector lanes. Logits are products in registers (broadcast queries x key lanes); what a query of the block
// does not see starts at -inf, so that masks cost nothing; weights times values is a product in registers again. Panels
// are packed once for a strip of blocks, whatever the dtype, strides and residue class of the inputs.
//
// A masked pair has weight 0; 0 times infinity is NaN. So a finite result is right, and one that is not is computed anew
// by the definition, which touches nothing that is not seen.
#include "decode.hpp"
#include "work.hpp"

namespace FOVEA_VARIANT {
namespace {

// ---- packing

ALWAYS_INLINE int64_t panel_place(const Work &w, const Tensor &t, const Panel &panel, int lane) {
    const int x = panel.x + lane;
    if (panel.z == EXTRA) return w.batch * t.batch + x * t.axis[0] + w.kv_head * t.head;
    return key_place(w, t, panel.z, panel.y, x);
}

// Rows that are all there, as numbers that need no conversion, in whole vectors: they are read where they lie.
void find_rows(const Work &w, Panel &panel) {
    const Plan *p = w.plan;
    const ClassAxis *a = w.cls->axis;
    const int channels = w.backward ? p->head_dim : p->value_dim;
    panel.rows = nullptr;
    if (p->dtype != FOVEA_FLOAT32 || channels % WIDE || panel.z == EXTRA) return;
    if (!real(a[0], panel.z) || !real(a[1], panel.y) || !real(a[2], panel.x) || !real(a[2], panel.x + panel.keys - 1)) return;
    const Tensor &t = w.backward ? p->key : p->value;
    panel.rows = (const float *)(t.data + panel_place(w, t, panel, 0) * 4);
    panel.apart = a[2].step * t.axis[2];
}

void pack_panel(Work &w, const Panel &panel, float *at) {
    const Plan *p = w.plan;
    const ClassAxis *a = w.cls->axis;
    const int64_t pitch = p->tiling.pitch;
    float *key_lanes = at, *second = at + pitch * p->head_dim;
    float *value_lanes = second;                                        // backward
    float *rows = w.backward ? second + pitch * p->value_dim : second;  // values (forward), keys (backward)
    const int64_t width = w.backward ? w.key_width : w.value_width;
    const bool extra = panel.z == EXTRA;
    const bool outside = !extra && !(real(a[0], panel.z) && real(a[1], panel.y));
    const Tensor &kt = extra ? p->extra_key : p->key, &vt = extra ? p->extra_value : p->value;
    const int64_t kw = w.key_width, vw = w.value_width;
    const int64_t key_apart = extra ? kt.axis[0] : a[2].step * kt.axis[2];
    const int64_t value_apart = extra ? vt.axis[0] : a[2].step * vt.axis[2];
    const int filled = (int)rounded(panel.keys, 4);
    if (filled < pitch) {
        for (int d = 0; d < p->head_dim; ++d) memset(key_lanes + d * pitch + filled, 0, (size_t)(pitch - filled) * 4);
        if (w.backward)
            for (int d = 0; d < p->value_dim; ++d) memset(value_lanes + d * pitch + filled, 0, (size_t)(pitch - filled) * 4);
    }
    const bool next = !extra && !outside && real(a[1], panel.y + 1);
    for (int lane = 0; lane < filled; lane += 4) {
        const int x = panel.x + lane;
        // Rows of keys that are all there are turned where they lie.
        const bool direct = p->dtype == FOVEA_FLOAT32 && !outside && lane + 4 <= panel.keys &&
                            (extra || (real(a[2], x) && real(a[2], x + 3)));
        if (direct) {
            const int64_t k = panel_place(w, kt, panel, lane), v = panel_place(w, vt, panel, lane);
            if (next)
                for (int i = 0; i < 4; ++i) {
                    fetch(kt, p->dtype, k + i * key_apart + a[1].step * kt.axis[1], p->head_dim, false);
                    fetch(vt, p->dtype, v + i * value_apart + a[1].step * vt.axis[1], p->value_dim, false);
                }
            transpose4(kt.data + k * 4, key_apart, p->head_dim, key_lanes + lane, pitch);
            if (w.backward) transpose4(vt.data + v * 4, value_apart, p->value_dim, value_lanes + lane, pitch);
            if (panel.rows) continue;
            const Tensor &t = w.backward ? kt : vt;
            const int channels = w.backward ? p->head_dim : p->value_dim;
            for (int i = 0; i < 4; ++i) {
                float *row = rows + (lane + i) * width;
                read_row(p->dtype, t.data, w.backward ? k + i * key_apart : v + i * value_apart, channels, row);
                for (int64_t c = channels; c < width; ++c) row[c] = 0;
            }
            continue;
        }
        float *keys = w.backward ? rows + lane * width : w.sources, *values = w.backward ? w.row : rows + lane * width;
        for (int i = 0; i < 4; ++i) {
            float *k = keys + i * kw, *v = values + i * vw;
            if (lane + i < panel.keys && !outside && (extra || real(a[2], x + i))) {
                const int64_t ka = panel_place(w, kt, panel, lane + i), va = panel_place(w, vt, panel, lane + i);
                read_row(p->dtype, kt.data, ka, p->head_dim, k);
                read_row(p->dtype, vt.data, va, p->value_dim, v);
                if (next) {
                    fetch(kt, p->dtype, ka + a[1].step * kt.axis[1], p->head_dim, false);
                    fetch(vt, p->dtype, va + a[1].step * vt.axis[1], p->value_dim, false);
                }
                for (int64_t c = p->head_dim; c < kw; ++c) k[c] = 0;
                for (int64_t c = p->value_dim; c < vw; ++c) v[c] = 0;
            } else {
                memset(k, 0, (size_t)kw * 4);
                memset(v, 0, (size_t)vw * 4);
            }
        }
        transpose4((const char *)keys, kw, p->head_dim, key_lanes + lane, pitch);
        if (w.backward) transpose4((const char *)values, vw, p->value_dim, value_lanes + lane, pitch);
    }
}

void need_panel(Work &w, Panel &panel) {
    find_rows(w, panel);
    int slot = w.slot_of[panel.id];
    if (slot < 0) {
        while (w.stamp[w.next_slot] == w.now) w.next_slot = (w.next_slot + 1) % w.plan->tiling.panels;
        slot = w.next_slot;
        w.next_slot = (w.next_slot + 1) % w.plan->tiling.panels;
        if (w.owner[slot] >= 0) w.slot_of[w.owner[slot]] = -1;
        w.owner[slot] = panel.id;
        w.slot_of[panel.id] = slot;
        pack_panel(w, panel, w.panels + slot * w.panel_floats);
    }
    w.stamp[slot] = w.now;
    panel.slot = slot;
}

// Queries of the strip, in the order tile, row, column; columns beyond the strip repeat its last one with zeros.
void pack_queries(Work &w) {
    const Plan *p = w.plan;
    const int across = p->tiling.tile_columns, block = w.rows * across;
    const float scale = p->scale * LOG2E;
    const ClassAxis &down = w.cls->axis[1];
    // Four rows at a time are scaled and turned, so that the queries of a block lie side by side.
    auto turn = [&](float *rows, int64_t width, int channels, float factor, float *lanes, int count) {
        for (int64_t i = 0; i < count * width; ++i) rows[i] *= factor;
        if (count == 4) {
            transpose4((const char *)rows, width, channels, lanes, block);
            return;
        }
        for (int i = 0; i < count; ++i)
            for (int d = 0; d < channels; ++d) lanes[(int64_t)d * block + i] = rows[i * width + d];
    };
    for (int first = 0, base = 0; first < w.columns; first += across, base += block)
        for (int m = 0; m < block; m += 4) {
            const int count = least(4, block - m);
            float *queries = w.sources, *grads = w.row;
            memset(queries, 0, (size_t)(4 * w.key_width) * 4);
            if (w.backward) memset(grads, 0, (size_t)(4 * w.value_width) * 4);
            for (int i = 0; i < count; ++i) {
                const int n = base + m + i, y = w.y + (m + i) / across, x = w.column + first + (m + i) % across;
                const bool here = (m + i) % across + first < w.columns;
                float *q = queries + i * w.key_width, *g = grads + i * w.value_width;
                float delta = 0;
                if (w.backward) w.largest[n] = INFINITY;
                if (here) {
                    const int64_t at = query_place(w, p->query, y, x, w.head);
                    read_row(p->dtype, p->query.data, at, p->head_dim, q);
                    const bool next = y + w.rows < down.queries;
                    if (next) fetch(p->query, p->dtype, at + w.rows * down.step * p->query.axis[1], p->head_dim, false);
                    if (next && w.backward) {
                        const int64_t below = w.rows * down.step;
                        const int64_t g = query_place(w, p->grad_out, y, x, w.head) + below * p->grad_out.axis[1];
                        const int64_t o = query_place(w, p->out, y, x, w.head) + below * p->out.axis[1];
                        fetch(p->grad_out, p->dtype, g, p->value_dim, false);
                        fetch(p->out, p->dtype, o, p->value_dim, false);
                        __builtin_prefetch(p->lse + lse_place(w, y, x, w.head) + below * p->query_size[2] * p->heads);
                    }
                    if (w.backward)
                        fetch(p->grad_query, p->dtype, query_place(w, p->grad_query, y, x, w.head), p->head_dim, true);
                    else
                        fetch(p->out, p->dtype, query_place(w, p->out, y, x, w.head), p->value_dim, true);
                }
                if (!w.backward) continue;
                float *rows = w.query_rows + n * w.key_width, *grad_rows = w.grad_rows + n * w.value_width;
                for (int64_t d = 0; d < w.key_width; ++d) rows[d] = q[d] * p->scale;
                if (here) {
                    float *o = grad_rows;
                    read_row(p->dtype, p->grad_out.data, query_place(w, p->grad_out, y, x, w.head), p->value_dim, g);
                    read_row(p->dtype, p->out.data, query_place(w, p->out, y, x, w.head), p->value_dim, o);
                    Wide sum{};
                    int d = 0;
                    for (; d + WIDE <= p->value_dim; d += WIDE) sum += load<Wide>(g + d) * load<Wide>(o + d);
                    delta = lane_sum<WIDE>(sum);
                    for (; d < p->value_dim; ++d) delta += g[d] * o[d];
                    int64_t at = lse_place(w, y, x, w.head);
                    if (p->grad_lse && p->lse[at] != -INFINITY) delta -= p->grad_lse[at];
                    w.largest[n] = p->lse[at] == -INFINITY ? INFINITY : p->lse[at] * LOG2E;
                }
                w.delta[n] = delta;
                memcpy(grad_rows, g, (size_t)w.value_width * 4);
            }
            turn(queries, w.key_width, p->head_dim, scale, w.queries + (int64_t)base * p->head_dim + m, count);
            if (w.backward)
                turn(grads, w.value_width, p->value_dim, 1, w.grads + (int64_t)base * p->value_dim + m, count);
        }
}

// ---- blocks

// Vectors and pieces of a block, gathered until the chunk is full.
struct Gather {
    int vectors, pieces, segments, mask_used;
    int mask_x, mask_keys;  // what the last mask was made for
    const float *mask;
    bool extra;  // extra keys, which have no bias
};
constexpr Gather NOTHING = {0, 0, 0, 0, 0, -1, nullptr, false};

template <int N> void weigh(Work &w, const Gather &g, int base, int block, float *sums) {
    typedef typename Lanes<N>::F F;
    for (int m = 0; m < block; ++m) {
        int from = -1, to = -1;
        for (int s = 0; s < g.segments; ++s)
            if (w.segments[s].begin <= m && m < w.segments[s].end) {
                if (from < 0) from = w.segments[s].vector;
                to = w.segments[s + 1].vector;
            }
        if (from < 0) continue;
        float *row = w.weights + m * CHUNK;
        F high = splat<F>(-INFINITY);
        for (int v = from; v < to; ++v) high = larger(load<F>(row + v * N), high);
        float before = w.largest[base + m], now = lane_max<N>(high);
        now = now > before ? now : before;
        float shift = now == -INFINITY ? 0 : now;
        F sum{};
        for (int v = from; v < to; ++v) {
            F e = exp2<N>(load<F>(row + v * N) - shift);
            sum += e;
            store(row + v * N, e);
        }
        float decay = before == -INFINITY ? 0 : ::exp2f(before - shift);
        w.total[base + m] = w.total[base + m] * decay + lane_sum<N>(sum);
        w.largest[base + m] = now;
        if (decay != 1 && before != -INFINITY) {
            float *o = sums + m * w.value_width;
            for (int64_t c = 0; c < w.value_width; c += WIDE) store(o + c, load<Wide>(o + c) * decay);
        }
    }
}

template <int N>
void compute_chunk(Work &w, Gather &g, int base, int block, const int64_t *row_bias) {
    if (!g.vectors) return;
    const Plan *p = w.plan;
    const int across = p->tiling.tile_columns;
    const int64_t pitch = p->tiling.pitch;
    w.segments[g.segments] = Segment{g.vectors, g.pieces, 0, 0};
    const float *queries = w.queries + (int64_t)base * p->head_dim;
    const bool biased = p->bias && !g.extra;
    const float *bias = biased ? p->bias + w.head * p->bias_head : nullptr;
    for (int s = 0; s < g.segments; ++s) {
        Segment &at = w.segments[s];
        int count = w.segments[s + 1].vector - at.vector;
        if (biased)
            logits<N, 2>(queries, block, w.vectors + at.vector, count, false, pitch, p->head_dim, at.begin, at.end,
                         across, bias, row_bias, w.weights + at.vector * N);
        else
            logits<N, 1>(queries, block, w.vectors + at.vector, count, false, pitch, p->head_dim, at.begin, at.end,
                         across, bias, row_bias, w.weights + at.vector * N);
    }
    if (!w.backward) {
        float *sums = w.sums + base * w.value_width;
        weigh<N>(w, g, base, block, sums);
        for (int s = 0; s < g.segments; ++s) {
            Segment &at = w.segments[s];
            weighted(w.weights, w.pieces + at.piece, w.segments[s + 1].piece - at.piece, w.value_width, at.begin, at.end,
                     sums);
        }
    } else {
        typedef typename Lanes<N>::F F;
        const float *grads = w.grads + (int64_t)base * p->value_dim;
        float *sums = w.sums + base * w.key_width;
        for (int s = 0; s < g.segments; ++s) {
            Segment &at = w.segments[s], &next = w.segments[s + 1];
            logits<N, 0>(grads, block, w.vectors + at.vector, next.vector - at.vector, true, pitch, p->value_dim,
                         at.begin, at.end, across, nullptr, nullptr, w.slopes + at.vector * N);
            for (int m = at.begin; m < at.end; ++m) {
                float *weight = w.weights + m * CHUNK, *slope = w.slopes + m * CHUNK;
                const float lse = w.largest[base + m], delta = w.delta[base + m];
                for (int v = at.vector; v < next.vector; ++v) {
                    F e = exp2<N>(load<F>(weight + v * N) - lse);
                    F ds = e * (load<F>(slope + v * N) - delta);
                    store(weight + v * N, e);
                    store(slope + v * N, ds);
                }
                if (biased && w.bias_sum) {
                    float *target = w.bias_sum + w.head * p->bias_head + row_bias[m];
                    for (int v = at.vector; v < next.vector; ++v) {
                        float *t = target + w.vectors[v].bias;
                        store(t, load<F>(t) + load<F>(slope + v * N));
                    }
                }
            }
            weighted(w.slopes, w.pieces + at.piece, next.piece - at.piece, w.key_width, at.begin, at.end, sums);
            for (int i = at.piece; i < next.piece; ++i) {
                const Piece &piece = w.pieces[i];
                if (piece.real <= 0) continue;
                int lane = piece.slot + piece.skip;
                spread(w.weights + lane, w.grad_rows + base * w.value_width, w.value_width, at.begin, at.end, piece.real,
                       w.value_sum + piece.target * w.value_width, piece.stride * w.value_width);
                spread(w.slopes + lane, w.query_rows + base * w.key_width, w.key_width, at.begin, at.end, piece.real,
                       w.key_sum + piece.target * w.key_width, piece.stride * w.key_width);
            }
        }
    }
    g = NOTHING;
}

// One tile of the strip against the panels [from, to) of the list.
template <int N> void compute_block(Work &w, int first, int base, int from, int to) {
    const Plan *p = w.plan;
    const Tiling &t = p->tiling;
    const ClassAxis *a = w.cls->axis;
    const int across = t.tile_columns, block = w.rows * across;
    int low = 1 << 30, high = -(1 << 30), last_start = -(1 << 30), first_stop = 1 << 30;
    int start[MOST_QUERIES], stop[MOST_QUERIES], position[MOST_QUERIES];
    for (int i = 0; i < across; ++i) {
        int x = w.column + least(first + i, w.columns - 1);
        start[i] = a[2].start[x];
        stop[i] = a[2].stop[x];
        position[i] = a[2].position[x];
        last_start = most(last_start, start[i]);
        first_stop = least(first_stop, stop[i]);
        if (stop[i] > start[i]) {
            low = least(low, start[i]);
            high = most(high, stop[i]);
        }
    }
    int64_t row_bias[MOST_QUERIES];
    if (p->bias)
        for (int m = 0; m < block; ++m) {
            int y = w.y + m / across;
            row_bias[m] = p->bias_margin - ((a[0].position[w.z] + p->bias_low[0]) * p->bias_count[1] +
                                            a[1].position[y] + p->bias_low[1]) * p->bias_pitch -
                          position[m % across] - p->bias_low[2];
        }
    Gather g = NOTHING;
    for (int i = from; i < to; ++i) {
        Panel &panel = w.list[i];
        const bool extra = panel.z == EXTRA;
        int lane = 0, end = panel.keys;
        if (!extra) {
            if (t.long_rows || p->blocks) {
                lane = most(0, low - panel.x) / N * N;
                end = least(panel.keys, high - panel.x);
            } else {
                lane = low - panel.x;
                end = high - panel.x;
            }
            if (end <= lane) continue;
        }
        if (extra && (i == from || w.list[i - 1].z != EXTRA)) compute_chunk<N>(w, g, base, block, row_bias);
        float *at = w.panels + panel.slot * w.panel_floats;
        while (lane < end) {
            int room = CHUNK / N - g.vectors;
            if (!room) {
                compute_chunk<N>(w, g, base, block, row_bias);
                room = CHUNK / N;
            }
            int keys = least(end - lane, room * N), count = (keys + N - 1) / N, x = panel.x + lane;
            Segment *last = w.segments + g.segments - 1;
            int begin = panel.first_row * across, stop_row = panel.end_row * across;
            if (!g.segments || last->begin != begin || last->end != stop_row)
                w.segments[g.segments++] = Segment{g.vectors, g.pieces, begin, stop_row};
            const float *mask = w.zeros;
            int64_t mask_pitch = 0;
            bool clean = keys % N == 0 && (extra || (last_start <= x && x + keys <= first_stop));
            if (!clean) {
                mask_pitch = CHUNK + WIDE;
                if (extra || g.mask_keys != keys || g.mask_x != x) {
                    float *m = w.masks + g.mask_used;
                    for (int c = 0; c < across; ++c)
                        for (int l = 0; l < count * N; ++l) {
                            bool seen = l < keys && (extra || (x + l >= start[c] && x + l < stop[c]));
                            m[c * mask_pitch + l] = seen ? 0.0f : -INFINITY;
                        }
                    g.mask = m;
                    g.mask_used += count * N;
                    g.mask_x = x;
                    g.mask_keys = keys;
                }
                mask = g.mask;
            }
            g.extra = extra;
            int64_t bias = ((int64_t)panel.z * p->bias_count[1] + panel.y) * p->bias_pitch + x;
            if (extra) bias = 0;
            const int64_t channels = p->head_dim;
            float *rows = at + t.pitch * (w.backward ? channels + p->value_dim : channels);
            const int64_t apart = panel.rows ? panel.apart : w.backward ? w.key_width : w.value_width;
            Piece piece{(panel.rows ? panel.rows : rows) + lane * apart, apart, keys, g.vectors * N, -1, 0, 0, 1};
            if (w.backward) {
                const int64_t *box = w.item->low, *size = w.item->size;
                if (extra) {
                    piece.target = size[0] * size[1] * size[2] + x;
                    piece.real = keys;
                } else if (real(a[0], panel.z) && real(a[1], panel.y)) {
                    piece.skip = most(0, most(low, 0) - x);
                    // Lanes of no query at the rounded beginning may lie before the item's box.
                    piece.real = least(x + keys, a[2].keys) - x - piece.skip;
                    piece.stride = a[2].step;
                    int64_t kz = a[0].first_key + panel.z * a[0].step - box[0];
                    int64_t ky = a[1].first_key + panel.y * a[1].step - box[1];
                    int64_t kx = a[2].first_key + (x + piece.skip) * a[2].step - box[2];
                    piece.target = (kz * size[1] + ky) * size[2] + kx;
                }
            }
            w.pieces[g.pieces++] = piece;
            const float *value_lanes = at + t.pitch * channels;
            for (int v = 0; v < count; ++v)
                w.vectors[g.vectors++] =
                    KeyVector{at + lane + v * N, value_lanes + lane + v * N, mask_pitch ? mask + v * N : w.zeros,
                              mask_pitch, bias + v * N};
            lane += count * N;
        }
    }
    compute_chunk<N>(w, g, base, block, row_bias);
}

void finish_strip(Work &w) {
    const Plan *p = w.plan;
    const int across = p->tiling.tile_columns, block = w.rows * across;
    const int64_t width = w.backward ? w.key_width : w.value_width;
    for (int first = 0, base = 0; first < w.columns; first += across, base += block)
        for (int m = 0; m < block; ++m) {
            int y = w.y + m / across, x = w.column + first + m % across;
            if (first + m % across >= w.columns) continue;
            float *row = w.sums + (base + m) * width;
            if (w.backward) {
                for (int d = 0; d < p->head_dim; ++d) row[d] *= p->scale;
                if (not_finite(row, p->head_dim)) {
                    for (int d = 0; d < p->head_dim; ++d) row[d] = 0;
                    exact_backward(w, y, x, row, nullptr, nullptr, nullptr);
                }
                write_row(p->dtype, p->grad_query.data, query_place(w, p->grad_query, y, x, w.head), p->head_dim, row);
                continue;
            }
            float total = w.total[base + m], lse = -INFINITY;
            if (total != 0) {
                float inverse = 1 / total;
                for (int d = 0; d < p->value_dim; ++d) row[d] *= inverse;
                lse = (w.largest[base + m] + log2f(total)) * LN2;
            }
            if (not_finite(row, p->value_dim) || lse != lse) exact_forward(w, y, x, row, &lse);
            write_row(p->dtype, p->out.data, query_place(w, p->out, y, x, w.head), p->value_dim, row);
            p->lse[lse_place(w, y, x, w.head)] = lse;
        }
}

void compute_strip(Work &w) {
    const Plan *p = w.plan;
    const Tiling &t = p->tiling;
    const int across = t.tile_columns, block = w.rows * across;
    const int strip = (w.columns + across - 1) / across * block;
    const int64_t width = w.backward ? w.key_width : w.value_width;
    for (w.head = w.kv_head * p->group; w.head < (w.kv_head + 1) * p->group; ++w.head) {
        list_panels(w);
        pack_queries(w);
        memset(w.sums, 0, (size_t)(strip * width) * 4);
        if (!w.backward)
            for (int i = 0; i < strip; ++i) {
                w.largest[i] = -INFINITY;
                w.total[i] = 0;
            }
        for (int from = 0; from < w.panel_count;) {
            int to = least(w.panel_count, from + t.panels);
            ++w.now;
            for (int i = from; i < to; ++i) need_panel(w, w.list[i]);
            for (int first = 0, base = 0; first < w.columns; first += across, base += block) {
                if (p->narrow == WIDE)
                    compute_block<WIDE>(w, first, base, from, to);
                else
                    compute_block<NARROW>(w, first, base, from, to);
            }
            from = to;
        }
        finish_strip(w);
    }
}

// All strips of one class that belong to the item.
void compute_class(Work &w, const Item &item) {
    const Plan *p = w.plan;
    const Tiling &t = p->tiling;
    const ClassAxis *a = w.cls->axis;
    int from[3], to[3];
    for (int i = 0; i < 3; ++i) {
        from[i] = item.axis == i ? share(a[i].queries, item.part, item.parts) : 0;
        to[i] = item.axis == i ? share(a[i].queries, item.part + 1, item.parts) : a[i].queries;
    }
    w.batch = item.batch;
    w.kv_head = item.kv_head;
    w.item = &item;
    forget_panels(w);
    for (int x = from[2]; x < to[2];) {
        int end = least(to[2], x + t.columns);
        if (p->blocks) {  // a strip lies in one block of the table
            int64_t size = p->blocks->size, at = p->blocks->position + x;
            end = (int)least((int64_t)end, (at / size + 1) * size - p->blocks->position);
        }
        w.column = x;
        w.columns = end - x;
        if (!t.long_rows && !p->blocks) forget_panels(w);
        for (w.z = from[0]; w.z < to[0]; ++w.z)
            for (w.y = from[1]; w.y < to[1]; w.y += w.rows) {
                w.rows = least(t.tile_rows, to[1] - w.y);
                compute_strip(w);
            }
        x = end;
    }
}

// ---- what the library calls

int64_t scratch(const Plan *p, bool backward) {
    Work w;
    return carve(w, p, backward, nullptr);
}

void forward(const Plan *p, const Item *item, void *memory) {
    Work w;
    start_work(w, p, false, memory);
    w.cls = p->cls + item->cls;
    compute_class(w, *item);
}

void backward(const Plan *p, const Item *item, void *memory, float *buffer, float *bias_sum) {
    Work w;
    start_work(w, p, true, memory);
    int64_t keys = item->size[0] * item->size[1] * item->size[2] + p->extra;
    w.key_sum = buffer;
    w.value_sum = buffer + keys * w.key_width;
    w.bias_sum = bias_sum;
    memset(buffer, 0, (size_t)(keys * (w.key_width + w.value_width)) * 4);
    for (int c = 0; c < p->classes; ++c) {
        w.cls = p->cls + c;
        compute_class(w, *item);
    }
}

int64_t row_floats(const Plan *p) { return rounded(p->head_dim, WIDE) + rounded(p->value_dim, WIDE); }

constexpr int AHEAD = 8;  // keys between one whose gradients are written and one whose place is fetched

void write_key(const Plan *p, int batch, int kv_head, const int64_t *at, int extra, const float *key, const float *value) {
    const Tensor &gk = extra >= 0 ? p->grad_extra_key : p->grad_key, &gv = extra >= 0 ? p->grad_extra_value : p->grad_value;
    int64_t k = batch * gk.batch + kv_head * gk.head, v = batch * gv.batch + kv_head * gv.head;
    for (int i = 0; i < 3; ++i) {
        int64_t n = extra >= 0 ? (i == 0 ? extra : 0) : at[i];
        k += n * gk.axis[i];
        v += n * gv.axis[i];
    }
    if (extra < 0 && at[2] + AHEAD < p->key_size[2]) {
        fetch(gk, p->dtype, k + AHEAD * gk.axis[2], p->head_dim, true);
        fetch(gv, p->dtype, v + AHEAD * gv.axis[2], p->value_dim, true);
    }
    write_row(p->dtype, gk.data, k, p->head_dim, key);
    write_row(p->dtype, gv.data, v, p->value_dim, value);
}

bool collect(const Plan *p, const Item *items, int count, const float *buffers, void *memory) {
    Work w;
    carve(w, p, true, (char *)memory);
    float *key = w.sources, *value = key + w.key_width;
    const int64_t *n = p->key_size;
    bool nan = false;
    int64_t at[3];
    for (at[0] = 0; at[0] < n[0]; ++at[0])
        for (at[1] = 0; at[1] < n[1]; ++at[1])
            for (at[2] = 0; at[2] < n[2]; ++at[2]) {
                const float *k = nullptr, *v = nullptr;
                int found = 0;
                for (int i = 0; i < count; ++i) {
                    const Item &item = items[i];
                    int64_t z = at[0] - item.low[0], y = at[1] - item.low[1], x = at[2] - item.low[2];
                    if (z < 0 || y < 0 || x < 0 || z >= item.size[0] || y >= item.size[1] || x >= item.size[2]) continue;
                    int64_t row = (z * item.size[1] + y) * item.size[2] + x;
                    int64_t keys = item.size[0] * item.size[1] * item.size[2] + p->extra;
                    const float *ki = buffers + item.buffer + row * w.key_width;
                    const float *vi = buffers + item.buffer + keys * w.key_width + row * w.value_width;
                    if (found++ == 0) {
                        k = ki;
                        v = vi;
                        continue;
                    }
                    if (found == 2) {
                        memcpy(key, k, (size_t)w.key_width * 4);
                        memcpy(value, v, (size_t)w.value_width * 4);
                        k = key;
                        v = value;
                    }
                    for (int64_t d = 0; d < w.key_width; ++d) key[d] += ki[d];
                    for (int64_t d = 0; d < w.value_width; ++d) value[d] += vi[d];
                }
                if (!found) {
                    memset(key, 0, (size_t)w.key_width * 4);
                    memset(value, 0, (size_t)w.value_width * 4);
                    k = key;
                    v = value;
                }
                nan |= not_finite(k, p->head_dim) || not_finite(v, p->value_dim);
                write_key(p, items[0].batch, items[0].kv_head, at, -1, k, v);
            }
    for (int e = 0; e < p->extra; ++e) {
        memset(key, 0, (size_t)w.key_width * 4);
        memset(value, 0, (size_t)w.value_width * 4);
        for (int i = 0; i < count; ++i) {
            int64_t keys = items[i].size[0] * items[i].size[1] * items[i].size[2];
            const float *ki = buffers + items[i].buffer + (keys + e) * w.key_width;
            const float *vi = buffers + items[i].buffer + (keys + p->extra) * w.key_width + (keys + e) * w.value_width;
            for (int64_t d = 0; d < w.key_width; ++d) key[d] += ki[d];
            for (int64_t d = 0; d < w.value_width; ++d) value[d] += vi[d];
        }
        nan |= not_finite(key, p->head_dim) || not_finite(value, p->value_dim);
        write_key(p, items[0].batch, items[0].kv_head, at, e, key, value);
    }
    return !nan;
}

void collect_exact(const Plan *p, int batch, int kv_head, void *memory, float *bias_sum) {
    Work w;
    const int64_t *n = p->key_size;
    int64_t keys = n[0] * n[1] * n[2] + p->extra;
    int64_t used = carve(w, p, true, (char *)memory);
    float *key_sum = (float *)((char *)memory + used), *value_sum = key_sum + keys * w.key_width;
    memset(key_sum, 0, (size_t)(keys * (w.key_width + w.value_width)) * 4);
    w.batch = batch;
    w.kv_head = kv_head;
    for (w.head = kv_head * p->group; w.head < (kv_head + 1) * p->group; ++w.head)
        for (int c = 0; c < p->classes; ++c) {
            w.cls = p->cls + c;
            const ClassAxis *a = w.cls->axis;
            for (w.z = 0; w.z < a[0].queries; ++w.z)
                for (int y = 0; y < a[1].queries; ++y)
                    for (int x = 0; x < a[2].queries; ++x)
                        exact_backward(w, y, x, nullptr, key_sum, value_sum, bias_sum);
        }
    int64_t row = 0, at[3];
    for (at[0] = 0; at[0] < n[0]; ++at[0])
        for (at[1] = 0; at[1] < n[1]; ++at[1])
            for (at[2] = 0; at[2] < n[2]; ++at[2], ++row)
                write_key(p, batch, kv_head, at, -1, key_sum + row * w.key_width, value_sum + row * w.value_width);
    for (int e = 0; e < p->extra; ++e, ++row)
        write_key(p, batch, kv_head, at, e, key_sum + row * w.key_width, value_sum + row * w.value_width);
}

}  // namespace

extern const Variant variant = {FOVEA_VARIANT_NAME, WIDE, NARROW, scratch, forward, backward, collect, collect_exact,
                                row_floats, decode_scratch, partial_floats, decode, join};

}  // namespace FOVEA_VARIANT
