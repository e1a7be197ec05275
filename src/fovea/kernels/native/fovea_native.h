/* C interface of the CPU kernels. Everything is plain data, so that ctypes can call it and no PyTorch is linked. */
#ifndef FOVEA_NATIVE_H
#define FOVEA_NATIVE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define FOVEA_EXPORT __declspec(dllexport)
#else
#define FOVEA_EXPORT __attribute__((visibility("default")))
#endif

enum fovea_dtype { FOVEA_FLOAT32 = 0, FOVEA_BFLOAT16 = 1, FOVEA_FLOAT16 = 2 };

/* A strided array [batch, axis 0, axis 1, axis 2, head, channel]; strides in elements, channels dense. */
typedef struct {
    void *data;
    int64_t size; /* elements that may be touched from data on; strides and shapes are checked against it */
    int64_t stride[5];
} fovea_tensor;

/* One axis of the normal form: query i sees start[i], start[i] + step, ... < stop[i]. */
typedef struct {
    int64_t queries, keys, step;
    int64_t before, after; /* zero keys before and after the axis */
    int64_t bias_low, bias_count;
    const int64_t *start, *stop, *position;
} fovea_axis;

/* Block tables: `tables` tables of `rows` rows; row r of table t sees the key blocks index[indptr[t * (rows + 1) + r]
   .. indptr[t * (rows + 1) + r + 1]). Query i stands at position + i; row 0 is the block of the first query. */
typedef struct {
    int64_t size, queries, keys, position, rows, tables, pairs, causal;
    const int64_t *indptr, *index;
    const int64_t *table_of; /* [batch * heads], or null where all use table 0 */
} fovea_blocks;

typedef struct {
    int32_t dtype, axes, threads, isa; /* isa: -1 for the best the machine has */
    int64_t batch, heads, kv_heads, head_dim, value_dim, extra;
    double scale;
    fovea_axis axis[3];
    const fovea_blocks *blocks; /* null for grid patterns; else axes == 1 and axis[0] is not read */
} fovea_problem;

typedef struct {
    fovea_tensor query, key, value, extra_key, extra_value, out;
    const float *bias; /* dense [heads, bias counts], or null */
    float *lse;        /* dense [batch, queries, heads] */
} fovea_operands;

typedef struct {
    fovea_tensor grad_out, grad_query, grad_key, grad_value, grad_extra_key, grad_extra_value;
    const float *grad_lse; /* dense [batch, queries, heads], or null */
    float *grad_bias;      /* dense [heads, bias counts], or null */
} fovea_gradients;

/* Each returns 0, or 1 with a message in error when the problem is refused; nothing was read or written then. */
FOVEA_EXPORT int fovea_forward(const fovea_problem *, const fovea_operands *, char *error, int64_t capacity);
FOVEA_EXPORT int fovea_backward(const fovea_problem *, const fovea_operands *, const fovea_gradients *, char *error,
                                int64_t capacity);

/* (query, key) pairs that the tiles would compute, exact pairs in pairs[1]; a negative number when refused. */
FOVEA_EXPORT int fovea_work(const fovea_problem *, int64_t pairs[2], char *error, int64_t capacity);

/* Names of the variants: 0 baseline, 1 AVX2 + FMA, 2 AVX-512; null where this build or machine has no such variant. */
FOVEA_EXPORT const char *fovea_isa_name(int isa);
FOVEA_EXPORT int fovea_best_isa(void);

/* The GOMP_parallel of the OpenMP runtime that the process already uses, or null: threads are then our own. */
FOVEA_EXPORT void fovea_set_parallel(void *gomp_parallel);

#ifdef __cplusplus
}
#endif
#endif
