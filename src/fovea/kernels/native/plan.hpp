// What the variants compute: a problem checked, split into residue classes and cut into tiles. Plain data: the variants
// are compiled for different machines and must not share inline code.
#pragma once
#include "fovea_native.h"

namespace fovea {

constexpr int MOST_QUERIES = 16;            // queries of a block: grid rows x columns
constexpr int CHUNK = 256;                  // key lanes whose weights are held at once
constexpr int PANEL_LANES = 64;             // keys of a panel where a row of keys is longer than a panel
constexpr int LONG_ROW = 160;               // a longer union of keys along the last axis is cut into panels
constexpr int64_t PANEL_BYTES = 512 << 10;  // panels kept at once

// One axis inside one residue class: coordinates are divided by the step, so that neighbours stand side by side.
struct ClassAxis {
    int queries, keys;
    const int *start, *stop, *position;    // stop <= start where a query sees nothing
    int64_t first_query, first_key, step;  // of the class in the grid
    int low, high;                         // smallest start and largest stop
};

struct Class {
    ClassAxis axis[3];
};

struct Tiling {
    int tile_columns;  // queries of a tile along the last axis, a power of two
    int tile_rows;     // query rows of a block
    int columns;       // queries of a strip along the last axis, a multiple of tile_columns
    bool long_rows;    // key rows are cut into panels of PANEL_LANES at fixed places
    int pitch;         // lanes of a panel in memory
    int panels;        // panels kept at once
    int64_t panel_ids;
};

// A share of the work: queries [begin, end) / of of each class, for one batch entry and kv head.
struct Item {
    int cls;  // -1: all classes
    int batch, kv_head;
    int axis, part, parts;    // the queries of `axis` are divided in `parts`
    int64_t low[3], size[3];  // box of keys that it touches, in the grid; backward only
    int64_t buffer;           // where it gathers their gradients, in floats; backward only
};

// A share of the work where few queries stand on a line: their keys [from, to), counted along the runs that they see.
struct Range {
    int cls, batch, kv_head, query, queries;  // queries of the class, [query, query + queries)
    int low, high;                            // keys of the class that they see, where there is no table of blocks
    int64_t from, to;
    int first, parts;  // the ranges of these queries, among all
};

struct Tensor {
    char *data;
    int64_t batch, axis[3], head;  // strides in elements
};

struct Plan {
    int dtype, batch, heads, kv_heads, group, head_dim, value_dim, extra, narrow;
    float scale;
    int64_t query_size[3], key_size[3], queries;
    int classes;
    const Class *cls;
    Tiling tiling;
    // Relative bias times log2(e), rows padded so that vectors may hang over: [heads, counts 0, counts 1, pitch].
    const float *bias;
    int64_t bias_count[3], bias_low[3], bias_pitch, bias_margin, bias_head;
    Tensor query, key, value, extra_key, extra_value, out;
    float *lse;
    Tensor grad_out, grad_query, grad_key, grad_value, grad_extra_key, grad_extra_value;
    const float *grad_lse;
    const fovea_blocks *blocks;
    int items;
    const Item *item;
};

struct Variant {
    const char *name;
    int wide, narrow;
    int64_t (*scratch)(const Plan *, bool backward);
    void (*forward)(const Plan *, const Item *, void *scratch);
    void (*backward)(const Plan *, const Item *, void *scratch, float *buffer, float *bias_sum);
    // Writes the gradients of one kv head from what its items gathered; false when they are not finite.
    bool (*collect)(const Plan *, const Item *, int items, const float *buffers, void *scratch);
    // The same from the definition, one query after the other; also the gradient of the bias, where it is not null.
    void (*collect_exact)(const Plan *, int batch, int kv_head, void *scratch, float *bias_sum);
    int64_t (*row)(const Plan *);  // floats of a key in a gradient buffer
    // Few queries on a line: what one range of keys gives, and the ranges of the same queries joined.
    int64_t (*decode_scratch)(const Plan *);
    int64_t (*partial)(const Plan *);  // floats of a partial result
    void (*decode)(const Plan *, const Range *, void *scratch, float *partial);
    void (*join)(const Plan *, const Range *, int parts, const float *partials, void *scratch);
};

inline int share(int total, int part, int parts) { return (int)((int64_t)total * part / parts); }

}  // namespace fovea
