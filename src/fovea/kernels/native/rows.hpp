// Rows of channels in memory: read and written in any dtype, turned, fetched ahead.
#pragma once
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

}  // namespace
}  // namespace FOVEA_VARIANT
