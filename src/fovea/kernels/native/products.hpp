// Products of matrices that live in registers: logits, weighted values, and what spreads back to keys.
#pragma once
#include "rows.hpp"

namespace FOVEA_VARIANT {
namespace {

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
    int64_t apart;      // floats between rows
    int keys, slot;     // how many, and the lane of the first
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
        const int64_t apart = pieces[p].apart;
        for (int k = 0; k < pieces[p].keys; ++k, row += apart) {
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

}  // namespace
}  // namespace FOVEA_VARIANT
