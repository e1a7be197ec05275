// Local attention, forward and backward, for one instruction set. Compiled once for each variant.
//
// A block of queries (a few rows x a few columns of the grid) meets its keys in panels: rows of keys, transposed so that
// keys lie in vector lanes. Logits are products in registers (broadcast queries x key lanes); what a query of the block
// does not see starts at -inf, so that masks cost nothing; weights times values is a product in registers again. Panels
// are packed once for a strip of blocks, whatever the dtype, strides and residue class of the inputs.
//
// A masked pair has weight 0; 0 times infinity is NaN. So a finite result is right, and one that is not is computed anew
// by the definition, which touches nothing that is not seen.
#include <math.h>

#include "plan.hpp"
#include "simd.hpp"

namespace FOVEA_VARIANT {
namespace {

using namespace fovea;

constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;
typedef Lanes<WIDE>::F Wide;

ALWAYS_INLINE int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
template <class T> ALWAYS_INLINE T least(T a, T b) { return a < b ? a : b; }
template <class T> ALWAYS_INLINE T most(T a, T b) { return a > b ? a : b; }

// ---- numbers in memory

ALWAYS_INLINE float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
ALWAYS_INLINE uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
ALWAYS_INLINE float from_half(uint16_t h) {
    uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13;
    float x = from_bits(magnitude) * 5.192296858534828e33f;  // 2^112
    uint32_t bits = to_bits(x) | (magnitude >= 0x0f800000u ? 0x7f800000u : 0u);
    return from_bits(bits | (uint32_t)(h & 0x8000) << 16);
}
ALWAYS_INLINE uint16_t to_half(float x) {
    uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
    if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
    if (bits < 0x38800000u) return (uint16_t)(sign | (to_bits(from_bits(bits) + 0.5f) - 0x3f000000u));
    bits += 0xc8000fffu + (bits >> 13 & 1);
    return (uint16_t)(sign | bits >> 13);
}
ALWAYS_INLINE uint16_t to_bfloat(float x) {
    uint32_t bits = to_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void read_row(int dtype, const char *data, int64_t at, int n, float *out) {
    if (dtype == FOVEA_FLOAT32) {
        const char *p = data + at * 4;
        int i = 0;
        for (; i + WIDE <= n; i += WIDE) {
            Wide v;
            memcpy(&v, p + i * 4, sizeof v);
            store(out + i, v);
        }
        if (i < n) memcpy(out + i, p + i * 4, (size_t)(n - i) * 4);
    } else if (dtype == FOVEA_BFLOAT16) {
        const char *p = data + at * 2;
        for (int i = 0; i < n; ++i) {
            uint16_t h;
            memcpy(&h, p + i * 2, 2);
            out[i] = from_bits((uint32_t)h << 16);
        }
    } else {
        const char *p = data + at * 2;
        for (int i = 0; i < n; ++i) {
            uint16_t h;
            memcpy(&h, p + i * 2, 2);
            out[i] = from_half(h);
        }
    }
}

void write_row(int dtype, char *data, int64_t at, int n, const float *in) {
    if (dtype == FOVEA_FLOAT32) {
        memcpy(data + at * 4, in, (size_t)n * 4);
        return;
    }
    char *p = data + at * 2;
    for (int i = 0; i < n; ++i) {
        uint16_t h = dtype == FOVEA_BFLOAT16 ? to_bfloat(in[i]) : to_half(in[i]);
        memcpy(p + i * 2, &h, 2);
    }
}

// out[c * pitch + i] = row i's channel c, for 4 rows that lie width floats apart.
void transpose4(const char *rows, int64_t width, int channels, float *out, int64_t pitch) {
    typedef Lanes<4>::F F;
    int c = 0;
    for (; c + 4 <= channels; c += 4) {
        F a, b, d, e;
        memcpy(&a, rows + c * 4, sizeof a);
        memcpy(&b, rows + (width + c) * 4, sizeof b);
        memcpy(&d, rows + (2 * width + c) * 4, sizeof d);
        memcpy(&e, rows + (3 * width + c) * 4, sizeof e);
        F ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        F ef = __builtin_shufflevector(d, e, 0, 4, 1, 5), gh = __builtin_shufflevector(d, e, 2, 6, 3, 7);
        store(out + c * pitch, __builtin_shufflevector(ab, ef, 0, 1, 4, 5));
        store(out + (c + 1) * pitch, __builtin_shufflevector(ab, ef, 2, 3, 6, 7));
        store(out + (c + 2) * pitch, __builtin_shufflevector(cd, gh, 0, 1, 4, 5));
        store(out + (c + 3) * pitch, __builtin_shufflevector(cd, gh, 2, 3, 6, 7));
    }
    for (; c < channels; ++c)
        for (int i = 0; i < 4; ++i) memcpy(out + c * pitch + i, rows + (i * width + c) * 4, 4);
}

// ---- products in registers

// Where a vector of keys starts: its transposed keys, its initial logits (0 or -inf; one row a column) and its bias.
struct KeyVector {
    const float *keys, *values;
    const float *mask;
    int64_t mask_pitch, bias;
};

// out[m, v] = start[m, v] + sum_d left[d, m] * panel_v[d]: logits of ROWS queries and VECTORS vectors of keys.
template <int N, int ROWS, int VECTORS, int START>
ALWAYS_INLINE void logits_tile(const float *left, int64_t left_pitch, const KeyVector *vectors, bool values,
                               int64_t pitch, int channels, int first, int columns, const float *bias,
                               const int64_t *row_bias, float *out) {
    typedef typename Lanes<N>::F F;
    F sum[ROWS][VECTORS];
    const float *panel[VECTORS];
    UNROLL for (int v = 0; v < VECTORS; ++v) {
        panel[v] = values ? vectors[v].values : vectors[v].keys;
        UNROLL for (int m = 0; m < ROWS; ++m) {
            if constexpr (START == 0) {
                sum[m][v] = F{};
            } else {
                sum[m][v] = load<F>(vectors[v].mask + ((first + m) & (columns - 1)) * vectors[v].mask_pitch);
                if constexpr (START == 2) sum[m][v] += load<F>(bias + vectors[v].bias + row_bias[first + m]);
            }
        }
    }
    for (int d = 0; d < channels; ++d) {
        F key[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; ++v) key[v] = load<F>(panel[v] + d * pitch);
        UNROLL for (int m = 0; m < ROWS; ++m) {
            F q = splat<F>(left[d * left_pitch + m]);
            UNROLL for (int v = 0; v < VECTORS; ++v) sum[m][v] += q * key[v];
        }
    }
    UNROLL for (int m = 0; m < ROWS; ++m)
        UNROLL for (int v = 0; v < VECTORS; ++v) store(out + m * CHUNK + v * N, sum[m][v]);
}

template <int N, int ROWS, int START>
void logits_rows(const float *left, int64_t left_pitch, const KeyVector *vectors, int count, bool values, int64_t pitch,
                 int channels, int first, int columns, const float *bias, const int64_t *row_bias, float *out) {
    int v = 0;
    for (; v + KEY_VECTORS <= count; v += KEY_VECTORS)
        logits_tile<N, ROWS, KEY_VECTORS, START>(left, left_pitch, vectors + v, values, pitch, channels, first, columns,
                                                 bias, row_bias, out + v * N);
    if constexpr (KEY_VECTORS > 2)
        for (; v + 2 <= count; v += 2)
            logits_tile<N, ROWS, 2, START>(left, left_pitch, vectors + v, values, pitch, channels, first, columns, bias,
                                           row_bias, out + v * N);
    for (; v < count; ++v)
        logits_tile<N, ROWS, 1, START>(left, left_pitch, vectors + v, values, pitch, channels, first, columns, bias,
                                       row_bias, out + v * N);
}

// Rows [begin, end) of the block against `count` vectors; out is the block's first row.
template <int N, int START>
void logits(const float *left, int64_t left_pitch, const KeyVector *vectors, int count, bool values, int64_t pitch,
            int channels, int begin, int end, int columns, const float *bias, const int64_t *row_bias, float *out) {
    int m = begin;
#define ROWS_OF(R)                                                                                                  \
    for (; m + R <= end; m += R)                                                                                    \
    logits_rows<N, R, START>(left + m, left_pitch, vectors, count, values, pitch, channels, m, columns, bias, row_bias, \
                             out + m * CHUNK)
    if constexpr (QUERY_ROWS >= 8) ROWS_OF(8);
    ROWS_OF(4);
    ROWS_OF(2);
    ROWS_OF(1);
#undef ROWS_OF
}

// Keys in a row, as a product of weights sees them.
struct Piece {
    const float *rows;  // values (forward) or keys (backward), one row a key
    int keys, slot;     // how many, and the lane of the first
    int lane;           // first lane inside the panel
    int64_t target;     // row of its first real key in the gradient buffer; -1: none
    int skip, real;     // keys before the first real one, and real keys
    int64_t stride;     // rows of the gradient buffer between keys
};

// sum[m] += sum over keys of weight[m, key] * rows[key], for ROWS queries and VECTORS vectors of channels.
template <int ROWS, int VECTORS>
ALWAYS_INLINE void weighted_tile(const float *weights, const Piece *pieces, int count, int64_t width, int channel,
                                 float *sum) {
    Wide total[ROWS][VECTORS];
    UNROLL for (int m = 0; m < ROWS; ++m)
        UNROLL for (int v = 0; v < VECTORS; ++v) total[m][v] = load<Wide>(sum + m * width + channel + v * WIDE);
    for (int p = 0; p < count; ++p) {
        const float *w = weights + pieces[p].slot, *row = pieces[p].rows + channel;
        for (int k = 0; k < pieces[p].keys; ++k, row += width) {
            Wide value[VECTORS];
            UNROLL for (int v = 0; v < VECTORS; ++v) value[v] = load<Wide>(row + v * WIDE);
            UNROLL for (int m = 0; m < ROWS; ++m) {
                Wide weight = splat<Wide>(w[m * CHUNK + k]);
                UNROLL for (int v = 0; v < VECTORS; ++v) total[m][v] += weight * value[v];
            }
        }
    }
    UNROLL for (int m = 0; m < ROWS; ++m)
        UNROLL for (int v = 0; v < VECTORS; ++v) store(sum + m * width + channel + v * WIDE, total[m][v]);
}

template <int VECTORS>
void weighted_channels(const float *weights, const Piece *pieces, int count, int64_t width, int channel, int begin,
                       int end, float *sum) {
    int m = begin;
#define ROWS_OF(R)               \
    for (; m + R <= end; m += R) \
    weighted_tile<R, VECTORS>(weights + m * CHUNK, pieces, count, width, channel, sum + m * width)
    if constexpr (WIDE == 16 && VECTORS < 4) ROWS_OF(8);
    ROWS_OF(4);
    ROWS_OF(2);
    ROWS_OF(1);
#undef ROWS_OF
}

void weighted(const float *weights, const Piece *pieces, int count, int64_t width, int begin, int end, float *sum) {
    int64_t c = 0;
    for (; c + CHANNEL_VECTORS * WIDE <= width; c += CHANNEL_VECTORS * WIDE)
        weighted_channels<CHANNEL_VECTORS>(weights, pieces, count, width, (int)c, begin, end, sum);
    if constexpr (CHANNEL_VECTORS > 2)
        for (; c + 2 * WIDE <= width; c += 2 * WIDE)
            weighted_channels<2>(weights, pieces, count, width, (int)c, begin, end, sum);
    for (; c < width; c += WIDE) weighted_channels<1>(weights, pieces, count, width, (int)c, begin, end, sum);
}

// target[key] += sum over queries of weight[m, key] * rows[m], for KEYS keys and VECTORS vectors of channels.
template <int KEYS, int VECTORS>
ALWAYS_INLINE void spread_tile(const float *weights, const float *rows, int64_t width, int begin, int end, float *target,
                               int64_t stride) {
    Wide total[KEYS][VECTORS];
    UNROLL for (int k = 0; k < KEYS; ++k)
        UNROLL for (int v = 0; v < VECTORS; ++v) total[k][v] = load<Wide>(target + k * stride + v * WIDE);
    for (int m = begin; m < end; ++m) {
        Wide row[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; ++v) row[v] = load<Wide>(rows + m * width + v * WIDE);
        UNROLL for (int k = 0; k < KEYS; ++k) {
            Wide weight = splat<Wide>(weights[m * CHUNK + k]);
            UNROLL for (int v = 0; v < VECTORS; ++v) total[k][v] += weight * row[v];
        }
    }
    UNROLL for (int k = 0; k < KEYS; ++k)
        UNROLL for (int v = 0; v < VECTORS; ++v) store(target + k * stride + v * WIDE, total[k][v]);
}

template <int VECTORS>
void spread_keys(const float *weights, const float *rows, int64_t width, int begin, int end, int keys, float *target,
                 int64_t stride) {
    int k = 0;
    if constexpr (WIDE == 16 && VECTORS <= 2)
        for (; k + 8 <= keys; k += 8)
            spread_tile<8, VECTORS>(weights + k, rows, width, begin, end, target + k * stride, stride);
    for (; k + 4 <= keys; k += 4)
        spread_tile<4, VECTORS>(weights + k, rows, width, begin, end, target + k * stride, stride);
    for (; k < keys; ++k) spread_tile<1, VECTORS>(weights + k, rows, width, begin, end, target + k * stride, stride);
}

void spread(const float *weights, const float *rows, int64_t width, int begin, int end, int keys, float *target,
            int64_t stride) {
    int64_t c = 0;
    for (; c + CHANNEL_VECTORS * WIDE <= width; c += CHANNEL_VECTORS * WIDE)
        spread_keys<CHANNEL_VECTORS>(weights, rows + c, width, begin, end, keys, target + c, stride);
    if constexpr (CHANNEL_VECTORS > 2)
        for (; c + 2 * WIDE <= width; c += 2 * WIDE)
            spread_keys<2>(weights, rows + c, width, begin, end, keys, target + c, stride);
    for (; c < width; c += WIDE) spread_keys<1>(weights, rows + c, width, begin, end, keys, target + c, stride);
}

// ---- one thread's memory

struct Panel {
    int z, y, x, keys;  // first key in class coordinates, and how many; extra keys have z == EXTRA
    int first_row, end_row;
    int64_t id;
    int slot;
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
    if (w.panel_count < w.list_size) w.list[w.panel_count++] = Panel{z, y, x, keys, first_row, end_row, id, -1};
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

// ---- packing

// A head's row is a few cache lines in a long stride, which the machine does not foresee.
ALWAYS_INLINE void fetch(const Tensor &t, int dtype, int64_t at, int channels, bool write) {
    const int size = dtype == FOVEA_FLOAT32 ? 4 : 2;
    const char *p = t.data + at * size;
    for (int i = 0; i < channels * size; i += 64) {
        if (write)
            __builtin_prefetch(p + i, 1);
        else
            __builtin_prefetch(p + i, 0);
    }
}

void pack_panel(Work &w, const Panel &panel, float *at) {
    const Plan *p = w.plan;
    const ClassAxis *a = w.cls->axis;
    const int64_t pitch = p->tiling.pitch;
    float *key_lanes = at, *second = at + pitch * p->head_dim;
    float *value_lanes = second;                                          // backward
    float *rows = w.backward ? second + pitch * p->value_dim : second;    // values (forward), keys (backward)
    const int64_t width = w.backward ? w.key_width : w.value_width;
    const bool extra = panel.z == EXTRA;
    const bool outside = !extra && !(real(a[0], panel.z) && real(a[1], panel.y));
    const Tensor &kt = extra ? p->extra_key : p->key, &vt = extra ? p->extra_value : p->value;
    const int64_t kw = w.key_width, vw = w.value_width;
    float *keys = w.sources, *values = w.row;
    const int filled = (int)rounded(panel.keys, 4);
    for (int d = 0; d < p->head_dim; ++d)
        memset(key_lanes + d * pitch + filled, 0, (size_t)(pitch - filled) * 4);
    if (w.backward)
        for (int d = 0; d < p->value_dim; ++d)
            memset(value_lanes + d * pitch + filled, 0, (size_t)(pitch - filled) * 4);
    const int64_t apart = extra ? kt.axis[0] : a[2].step * kt.axis[2];
    for (int lane = 0; lane < filled; lane += 4) {
        // Rows of keys that are all there are turned where they lie.
        const int last = panel.x + lane + 3;
        const bool direct = !w.backward && p->dtype == FOVEA_FLOAT32 && !outside && lane + 4 <= panel.keys &&
                            (extra || (real(a[2], last) && real(a[2], last - 3)));
        for (int i = 0; i < 4; ++i) {
            int x = panel.x + lane + i;
            float *k = w.backward ? rows + (lane + i) * width : keys + i * kw;
            float *v = w.backward ? values + i * vw : rows + (lane + i) * width;
            if (lane + i < panel.keys && !outside && (extra || real(a[2], x))) {
                int64_t ka, va;
                if (extra) {
                    ka = w.batch * kt.batch + x * kt.axis[0] + w.kv_head * kt.head;
                    va = w.batch * vt.batch + x * vt.axis[0] + w.kv_head * vt.head;
                } else {
                    ka = key_place(w, kt, panel.z, panel.y, x);
                    va = key_place(w, vt, panel.z, panel.y, x);
                }
                if (!direct) read_row(p->dtype, kt.data, ka, p->head_dim, k);
                read_row(p->dtype, vt.data, va, p->value_dim, v);
                if (!extra && real(a[1], panel.y + 1)) {
                    fetch(kt, p->dtype, ka + a[1].step * kt.axis[1], p->head_dim, false);
                    fetch(vt, p->dtype, va + a[1].step * vt.axis[1], p->value_dim, false);
                }
                if (!direct)
                    for (int64_t c = p->head_dim; c < kw; ++c) k[c] = 0;
                for (int64_t c = p->value_dim; c < vw; ++c) v[c] = 0;
            } else {
                memset(k, 0, (size_t)kw * 4);
                memset(v, 0, (size_t)vw * 4);
            }
        }
        if (direct) {
            const int64_t at = extra ? w.batch * kt.batch + (last - 3) * kt.axis[0] + w.kv_head * kt.head
                                     : key_place(w, kt, panel.z, panel.y, last - 3);
            transpose4(kt.data + at * 4, apart, p->head_dim, key_lanes + lane, pitch);
        } else {
            transpose4((const char *)(w.backward ? rows + lane * width : keys), kw, p->head_dim, key_lanes + lane, pitch);
        }
        if (w.backward) transpose4((const char *)values, vw, p->value_dim, value_lanes + lane, pitch);
    }
}

void need_panel(Work &w, Panel &panel) {
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
                    if (y + w.rows < down.queries)
                        fetch(p->query, p->dtype, at + w.rows * down.step * p->query.axis[1], p->head_dim, false);
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
            Piece piece{rows + lane * (w.backward ? w.key_width : w.value_width), keys, g.vectors * N, lane, -1, 0, 0, 1};
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

void write_key(const Plan *p, int batch, int kv_head, const int64_t *at, int extra, const float *key, const float *value) {
    const Tensor &gk = extra >= 0 ? p->grad_extra_key : p->grad_key, &gv = extra >= 0 ? p->grad_extra_value : p->grad_value;
    int64_t k = batch * gk.batch + kv_head * gk.head, v = batch * gv.batch + kv_head * gv.head;
    for (int i = 0; i < 3; ++i) {
        int64_t n = extra >= 0 ? (i == 0 ? extra : 0) : at[i];
        k += n * gk.axis[i];
        v += n * gv.axis[i];
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

extern const Variant variant = {FOVEA_VARIANT_NAME, WIDE, NARROW, scratch, forward, backward, collect, collect_exact, row_floats};

}  // namespace FOVEA_VARIANT
