// Vectors of the variant being compiled, through the compiler's vector extensions.
#pragma once
#include <stdint.h>
#include <string.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define ALWAYS_LAMBDA __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

namespace FOVEA_VARIANT {

template <int N> struct Lanes {
    typedef float F __attribute__((vector_size(N * 4)));
    typedef int32_t I __attribute__((vector_size(N * 4)));
};

#if defined(__AVX512F__)
// Registers: 32 of 16 lanes. WIDE is the vector of channels; keys go in vectors of WIDE or NARROW.
constexpr int WIDE = 16, NARROW = 8;
constexpr int QUERY_ROWS = 8, KEY_VECTORS = 3, CHANNEL_VECTORS = 4, WEIGHT_ROWS = 6;
#elif defined(__AVX__)
constexpr int WIDE = 8, NARROW = 8;
constexpr int QUERY_ROWS = 4, KEY_VECTORS = 2, CHANNEL_VECTORS = 2, WEIGHT_ROWS = 4;
#else
constexpr int WIDE = 4, NARROW = 4;
constexpr int QUERY_ROWS = 4, KEY_VECTORS = 2, CHANNEL_VECTORS = 2, WEIGHT_ROWS = 4;
#endif

template <class V> ALWAYS_INLINE V load(const float *p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class V> ALWAYS_INLINE void store(float *p, V v) { memcpy(p, &v, sizeof v); }
template <class V> ALWAYS_INLINE V splat(float x) { return x - V{}; }
template <class V> ALWAYS_INLINE V larger(V a, V b) { return a > b ? a : b; }

// Each lane joined with the one half a vector, a quarter, ... away: every lane ends with the whole.
template <int N, class Join> ALWAYS_INLINE float across_lanes(typename Lanes<N>::F v, Join join) {
    if constexpr (N == 16) {
        v = join(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
        v = join(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
        v = join(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
        v = join(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
    } else if constexpr (N == 8) {
        v = join(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3));
        v = join(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5));
        v = join(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6));
    } else {
        static_assert(N == 4);
        v = join(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));
        v = join(v, __builtin_shufflevector(v, v, 1, 0, 3, 2));
    }
    return v[0];
}
template <int N> ALWAYS_INLINE float lane_sum(typename Lanes<N>::F v) {
    return across_lanes<N>(v, [](auto a, auto b) ALWAYS_LAMBDA { return a + b; });
}
template <int N> ALWAYS_INLINE float lane_max(typename Lanes<N>::F v) {
    return across_lanes<N>(v, [](auto a, auto b) ALWAYS_LAMBDA { return larger(a, b); });
}

// 2^x within 1.5 ulp for x <= 127; 0 below -126; NaN stays NaN.
template <int N> ALWAYS_INLINE typename Lanes<N>::F exp2(typename Lanes<N>::F x) {
    typedef typename Lanes<N>::F F;
    typedef typename Lanes<N>::I I;
    const F low = splat<F>(-127.0f);
    F bounded = x < low ? low : x;
    const F magic = splat<F>(12582912.0f + 127.0f);  // 1.5 * 2^23: the integer part lands in the low mantissa bits
    F shifted = bounded + magic;
    F f = bounded - (shifted - magic);
    F p = splat<F>(1.5403530e-4f);
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    I bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits <<= 23;
    F power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

}  // namespace FOVEA_VARIANT
