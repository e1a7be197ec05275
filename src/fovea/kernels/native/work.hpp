// What one thread keeps, where its tokens lie, and the definition that it falls back on.
#pragma once
#include "products.hpp"

namespace FOVEA_VARIANT {
namespace {

struct Panel {
    int z, y, x, keys;  // first key in class coordinates, and how many; extra keys have z == EXTRA
    int first_row, end_row;
    int64_t id;
    int slot;
    const float *rows;  // values (forward) or keys (backward) where they lie, or null where they were copied
    int64_t apart;      // floats between these rows
};
constexpr int EXTRA = -(1 << 30);

struct Segment {
    int vector, piece, begin, end;  // first vector and piece, rows of the block that see it
};

struct Work {
    const Plan *plan;
    bool backward;
    int64_t key_width, value_width;  // padded channels
    int64_t panel_floats;
    float *panels, *queries, *grads, *query_rows, *grad_rows, *sums, *largest, *total, *delta;
    float *weights, *slopes, *masks, *zeros, *row, *sources;
    int *slot_of, *stamp;
    int64_t *owner;
    Panel *list;
    int64_t list_size;
    KeyVector *vectors;
    Piece *pieces;
    Segment *segments;
    // Where the thread is.
    const Class *cls;
    int batch, kv_head, head, z, y, rows, column, columns, next_slot, now;
    int panel_count, strip_low;
    const Item *item;
    float *key_sum, *value_sum, *bias_sum;
};

struct Carver {
    char *at;
    int64_t used;
    template <class T> T *take(int64_t n) {
        int64_t offset = used;
        used += rounded(n * (int64_t)sizeof(T) + 64, 64);
        return at ? (T *)(at + offset) : nullptr;
    }
};

int64_t carve(Work &w, const Plan *p, bool backward, char *memory) {
    Carver c{memory, 0};
    const Tiling &t = p->tiling;
    w.plan = p;
    w.backward = backward;
    w.key_width = rounded(p->head_dim, WIDE);
    w.value_width = rounded(p->value_dim, WIDE);
    int64_t lanes = t.pitch;
    w.panel_floats = rounded(lanes * (backward ? p->head_dim + p->value_dim + w.key_width : p->head_dim + w.value_width), 16);
    int64_t strip = (int64_t)t.tile_rows * t.columns;
    w.panels = c.take<float>(w.panel_floats * t.panels);
    w.queries = c.take<float>(strip * p->head_dim);
    w.sums = c.take<float>(strip * (backward ? w.key_width : w.value_width));
    w.largest = c.take<float>(strip);
    w.total = c.take<float>(strip);
    w.delta = c.take<float>(strip);
    if (backward) {
        w.grads = c.take<float>(strip * p->value_dim);
        w.query_rows = c.take<float>(strip * w.key_width);
        w.grad_rows = c.take<float>(strip * w.value_width);
        w.slopes = c.take<float>(MOST_QUERIES * CHUNK + 16);
    }
    w.weights = c.take<float>(MOST_QUERIES * CHUNK + 16);
    w.masks = c.take<float>((int64_t)t.tile_columns * (CHUNK + 2 * WIDE) * 2);
    w.zeros = c.take<float>(CHUNK);
    w.row = c.take<float>(4 * most(w.key_width, w.value_width) + most(p->head_dim, p->value_dim));
    w.sources = c.take<float>(4 * most(w.key_width, w.value_width));
    w.slot_of = c.take<int>(t.panel_ids);
    w.stamp = c.take<int>(t.panels);
    w.owner = c.take<int64_t>(t.panels);
    w.list_size = t.panel_ids;
    w.list = c.take<Panel>(t.panel_ids);
    w.vectors = c.take<KeyVector>(CHUNK / NARROW + 4);
    w.pieces = c.take<Piece>(CHUNK / NARROW + 4);
    w.segments = c.take<Segment>(CHUNK / NARROW + 4);
    return c.used;
}

void forget_panels(Work &w) {
    for (int64_t i = 0; i < w.plan->tiling.panel_ids; ++i) w.slot_of[i] = -1;
    for (int i = 0; i < w.plan->tiling.panels; ++i) {
        w.owner[i] = -1;
        w.stamp[i] = -1;
    }
    w.next_slot = 0;
    w.now = 0;
}

void start_work(Work &w, const Plan *p, bool backward, void *scratch) {
    carve(w, p, backward, (char *)scratch);
    for (int i = 0; i < CHUNK; ++i) w.zeros[i] = 0;
    forget_panels(w);
}

// ---- geometry

ALWAYS_INLINE int64_t place(const Tensor &t, const int64_t *step, const int64_t *first, int b, int z, int y, int x, int h) {
    return b * t.batch + (first[0] + z * step[0]) * t.axis[0] + (first[1] + y * step[1]) * t.axis[1] +
           (first[2] + x * step[2]) * t.axis[2] + h * t.head;
}
ALWAYS_INLINE int64_t query_place(const Work &w, const Tensor &t, int y, int x, int h) {
    const ClassAxis *a = w.cls->axis;
    int64_t step[3] = {a[0].step, a[1].step, a[2].step};
    int64_t first[3] = {a[0].first_query, a[1].first_query, a[2].first_query};
    return place(t, step, first, w.batch, w.z, y, x, h);
}
ALWAYS_INLINE int64_t key_place(const Work &w, const Tensor &t, int z, int y, int x) {
    const ClassAxis *a = w.cls->axis;
    int64_t step[3] = {a[0].step, a[1].step, a[2].step};
    int64_t first[3] = {a[0].first_key, a[1].first_key, a[2].first_key};
    return place(t, step, first, w.batch, z, y, x, w.kv_head);
}
ALWAYS_INLINE int64_t query_token(const Work &w, int y, int x) {
    const ClassAxis *a = w.cls->axis;
    const int64_t *n = w.plan->query_size;
    return ((a[0].first_query + w.z * a[0].step) * n[1] + a[1].first_query + y * a[1].step) * n[2] +
           a[2].first_query + x * a[2].step;
}
ALWAYS_INLINE int64_t lse_place(const Work &w, int y, int x, int h) {
    return ((int64_t)w.batch * w.plan->queries + query_token(w, y, x)) * w.plan->heads + h;
}
ALWAYS_INLINE bool real(const ClassAxis &a, int key) { return key >= 0 && key < a.keys; }

void add_panel(Work &w, int z, int y, int x, int keys, int first_row, int end_row, int64_t id) {
    if (w.panel_count < w.list_size) w.list[w.panel_count++] = Panel{z, y, x, keys, first_row, end_row, id, -1, nullptr, 0};
}

// The panels that the strip's queries see, those of the same rows side by side.
void list_panels(Work &w) {
    const Plan *p = w.plan;
    const ClassAxis *a = w.cls->axis;
    w.panel_count = 0;
    int low = 1 << 30, high = -(1 << 30);
    for (int i = w.column; i < w.column + w.columns; ++i)
        if (a[2].stop[i] > a[2].start[i]) {
            low = least(low, a[2].start[i]);
            high = most(high, a[2].stop[i]);
        }
    w.strip_low = low;
    int64_t ids = 0;
    if (p->blocks) {
        const fovea_blocks &t = *p->blocks;
        int64_t table = t.table_of ? t.table_of[(int64_t)w.batch * p->heads + w.head] : 0;
        int64_t row = (t.position + w.column) / t.size - t.position / t.size;
        int64_t parts = (t.size + PANEL_LANES - 1) / PANEL_LANES;
        const int64_t *span = t.indptr + table * (t.rows + 1) + row;
        ids = (t.keys + t.size - 1) / t.size * parts;
        for (int64_t i = span[0]; i < span[1]; ++i)
            for (int64_t part = 0; part < parts; ++part) {
                int64_t x = t.index[i] * t.size + part * PANEL_LANES;
                int64_t end = least(least(x + PANEL_LANES, (t.index[i] + 1) * t.size), t.keys);
                if (end > x) add_panel(w, 0, 0, (int)x, (int)(end - x), 0, 1, t.index[i] * parts + part);
            }
    } else {
        const bool cut = p->tiling.long_rows;
        int64_t across = cut ? (a[2].high - a[2].low + PANEL_LANES - 1) / PANEL_LANES : 1;
        ids = (int64_t)(a[0].high - a[0].low) * (a[1].high - a[1].low) * across;
        int y = 1 << 30, end = -(1 << 30);
        for (int r = 0; r < w.rows; ++r)
            if (a[1].stop[w.y + r] > a[1].start[w.y + r]) {
                y = least(y, a[1].start[w.y + r]);
                end = most(end, a[1].stop[w.y + r]);
            }
        while (y < end && low < high) {
            int first = 0, last = w.rows;
            while (first < w.rows && a[1].stop[w.y + first] <= y) ++first;
            while (last > first && a[1].start[w.y + last - 1] > y) --last;
            int until = end;  // the next key row that other query rows see
            if (first == last) {
                ++y;
                continue;
            }
            if (first < w.rows) until = least(until, a[1].stop[w.y + first]);
            if (last < w.rows) until = least(until, a[1].start[w.y + last]);
            for (int z = a[0].start[w.z]; z < a[0].stop[w.z]; ++z)
                for (int k = y; k < until; ++k) {
                    int64_t id = ((int64_t)(z - a[0].low) * (a[1].high - a[1].low) + k - a[1].low) * across;
                    if (!cut) {
                        add_panel(w, z, k, low, high - low, first, last, id);
                        continue;
                    }
                    for (int c = (low - a[2].low) / PANEL_LANES; a[2].low + c * PANEL_LANES < high; ++c) {
                        int x = a[2].low + c * PANEL_LANES;
                        add_panel(w, z, k, x, least(PANEL_LANES, a[2].high - x), first, last, id + c);
                    }
                }
            y = until;
        }
    }
    for (int e = 0; e < p->extra; e += PANEL_LANES)
        add_panel(w, EXTRA, 0, e, least(PANEL_LANES, p->extra - e), 0, w.rows, ids + e / PANEL_LANES);
}

// ---- the definition, for queries whose fast result is NaN

// Calls visit(key, value, bias, z, y, x) for each key that a query sees; key and value are null for zero keys.
template <class Visit> void each_key(Work &w, int y, int x, Visit visit) {
    const Plan *p = w.plan;
    const ClassAxis *a = w.cls->axis;
    const fovea_blocks *t = p->blocks;
    const int64_t *span = nullptr;
    if (t) {
        int64_t table = t->table_of ? t->table_of[(int64_t)w.batch * p->heads + w.head] : 0;
        span = t->indptr + table * (t->rows + 1) + (t->position + x) / t->size - t->position / t->size;
    }
    float *key = w.row, *value = w.row + w.key_width;
    int64_t runs = t ? span[1] - span[0] : 1;
    for (int kz = a[0].start[w.z]; kz < a[0].stop[w.z]; ++kz)
        for (int ky = a[1].start[y]; ky < a[1].stop[y]; ++ky)
            for (int64_t run = 0; run < runs; ++run) {
                int low = a[2].start[x], high = a[2].stop[x];
                if (t) {
                    int64_t block = t->index[span[0] + run];
                    low = (int)most((int64_t)low, block * t->size);
                    high = (int)least((int64_t)high, (block + 1) * t->size);
                }
                for (int kx = low; kx < high; ++kx) {
                    bool here = real(a[0], kz) && real(a[1], ky) && real(a[2], kx);
                    if (here) {
                        read_row(p->dtype, p->key.data, key_place(w, p->key, kz, ky, kx), p->head_dim, key);
                        read_row(p->dtype, p->value.data, key_place(w, p->value, kz, ky, kx), p->value_dim, value);
                    }
                    int64_t at = -1;
                    if (p->bias)
                        at = w.head * p->bias_head +
                             ((kz - a[0].position[w.z] - p->bias_low[0]) * p->bias_count[1] + ky - a[1].position[y] -
                              p->bias_low[1]) * p->bias_pitch +
                             p->bias_margin + kx - a[2].position[x] - p->bias_low[2];
                    visit(here ? key : nullptr, here ? value : nullptr, at, kz, ky, kx);
                }
            }
    for (int e = 0; e < p->extra; ++e) {
        read_row(p->dtype, p->extra_key.data,
                 w.batch * p->extra_key.batch + e * p->extra_key.axis[0] + w.kv_head * p->extra_key.head, p->head_dim, key);
        read_row(p->dtype, p->extra_value.data,
                 w.batch * p->extra_value.batch + e * p->extra_value.axis[0] + w.kv_head * p->extra_value.head,
                 p->value_dim, value);
        visit(key, value, (int64_t)-1, EXTRA, 0, e);
    }
}

float logit(const Plan *p, const float *q, const float *key, int64_t bias) {
    float sum = 0;
    if (key)
        for (int d = 0; d < p->head_dim; ++d) sum += q[d] * key[d];
    return sum * p->scale * LOG2E + (bias >= 0 ? p->bias[bias] : 0.0f);
}

void exact_forward(Work &w, int y, int x, float *out, float *lse) {
    const Plan *p = w.plan;
    float *q = w.sources;
    read_row(p->dtype, p->query.data, query_place(w, p->query, y, x, w.head), p->head_dim, q);
    float largest = -INFINITY, total = 0;
    each_key(w, y, x, [&](const float *key, const float *, int64_t bias, int, int, int) {
        float s = logit(p, q, key, bias);
        largest = s > largest || s != s ? s : largest;
    });
    float base = largest == -INFINITY ? 0 : largest;
    for (int d = 0; d < p->value_dim; ++d) out[d] = 0;
    each_key(w, y, x, [&](const float *key, const float *value, int64_t bias, int, int, int) {
        float weight = ::exp2f(logit(p, q, key, bias) - base);
        total += weight;
        if (value && weight != 0)
            for (int d = 0; d < p->value_dim; ++d) out[d] += weight * value[d];
    });
    for (int d = 0; d < p->value_dim; ++d) out[d] = total == 0 ? 0 : out[d] / total;
    *lse = total == 0 ? -INFINITY : largest == INFINITY ? INFINITY : (base + log2f(total)) * LN2;
}

// Adds one query's part to grad_query, the rows of the gradient buffers and the bias; each may be null.
void exact_backward(Work &w, int y, int x, float *grad_query, float *key_sum, float *value_sum, float *bias_sum) {
    const Plan *p = w.plan;
    float *q = w.sources, *g = q + w.key_width, *o = g + w.value_width;
    read_row(p->dtype, p->query.data, query_place(w, p->query, y, x, w.head), p->head_dim, q);
    read_row(p->dtype, p->grad_out.data, query_place(w, p->grad_out, y, x, w.head), p->value_dim, g);
    read_row(p->dtype, p->out.data, query_place(w, p->out, y, x, w.head), p->value_dim, o);
    float delta = 0;
    for (int d = 0; d < p->value_dim; ++d) delta += g[d] * o[d];
    int64_t at = lse_place(w, y, x, w.head);
    if (p->grad_lse && p->lse[at] != -INFINITY) delta -= p->grad_lse[at];
    float lse = p->lse[at] == -INFINITY ? INFINITY : p->lse[at] * LOG2E;
    const ClassAxis *a = w.cls->axis;
    const int64_t *n = p->key_size;
    each_key(w, y, x, [&](const float *key, const float *value, int64_t bias, int kz, int ky, int kx) {
        float weight = ::exp2f(logit(p, q, key, bias) - lse), product = 0;
        if (value)
            for (int d = 0; d < p->value_dim; ++d) product += g[d] * value[d];
        float slope = weight == 0 ? 0 : weight * (product - delta);
        if (grad_query && key && slope != 0)
            for (int d = 0; d < p->head_dim; ++d) grad_query[d] += p->scale * slope * key[d];
        if (bias_sum && bias >= 0) bias_sum[bias] += slope;
        if (!key_sum || !key) return;
        int64_t row = kz == EXTRA ? n[0] * n[1] * n[2] + kx
                                  : ((a[0].first_key + kz * a[0].step) * n[1] + a[1].first_key + ky * a[1].step) * n[2] +
                                        a[2].first_key + kx * a[2].step;
        if (slope != 0)
            for (int d = 0; d < p->head_dim; ++d) key_sum[row * w.key_width + d] += slope * p->scale * q[d];
        if (weight != 0)
            for (int d = 0; d < p->value_dim; ++d) value_sum[row * w.value_width + d] += weight * g[d];
    });
}

// Whether a row of n floats, padded with finite ones to whole vectors, holds what is not finite.
bool not_finite(const float *x, int n) {
    Wide sum{};
    for (int i = 0; i < n; i += WIDE) sum += load<Wide>(x + i) * 0.0f;
    const float total = lane_sum<WIDE>(sum);
    return total != total;
}

}  // namespace
}  // namespace FOVEA_VARIANT
