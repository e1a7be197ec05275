// The C interface: checks a problem, cuts it in tiles and items of work, and hands them to a variant.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "fovea_native.h"
#include "plan.hpp"
#include "threads.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace baseline {
extern const fovea::Variant variant;
}
#ifdef FOVEA_X86
namespace avx2 {
extern const fovea::Variant variant;
}
namespace avx512 {
extern const fovea::Variant variant;
}
#endif

namespace fovea {
namespace {

constexpr float LOG2E = 1.4426950408889634f;
constexpr int64_t LARGEST = int64_t(1) << 28;  // of a coordinate

[[noreturn]] void refuse(const std::string &why) { throw std::invalid_argument(why); }

const Variant *variant_of(int isa) {
#ifdef FOVEA_X86
    if (isa == 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &avx2::variant;
    if (isa == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return &avx512::variant;
#endif
    return isa == 0 ? &baseline::variant : nullptr;
}

int best() {
    for (int isa = 2; isa > 0; --isa)
        if (variant_of(isa)) return isa;
    return 0;
}

struct Free {
    void operator()(void *p) const { free(p); }
};
using Memory = std::unique_ptr<char, Free>;

// Fresh memory that is about to be written whole: the first touch of each small page would cost more than its arithmetic.
void use_large_pages(void *data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t page = uintptr_t(2) << 20, at = reinterpret_cast<uintptr_t>(data);
    const uintptr_t first = (at + page - 1) / page * page, last = (at + static_cast<uintptr_t>(bytes)) / page * page;
    if (data && bytes > 0 && first < last) madvise(reinterpret_cast<void *>(first), last - first, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}
void use_large_pages(const fovea_tensor &t, int dtype) { use_large_pages(t.data, t.size * (dtype == FOVEA_FLOAT32 ? 4 : 2)); }

Memory allocate(int64_t bytes) {
    char *p = static_cast<char *>(aligned_alloc(64, static_cast<size_t>((bytes + 127) / 64 * 64)));
    if (!p) throw std::bad_alloc();
    use_large_pages(p, bytes);
    return Memory(p);
}

// A problem in the form that variants read, and the memory it points to.
struct Prepared {
    Plan plan{};
    const Variant *variant = nullptr;
    int threads = 1;
    std::vector<std::vector<int>> tables;
    std::vector<Class> classes;
    std::vector<Item> items;
    std::vector<float> bias;
    fovea_blocks blocks{};
    int64_t bias_table = 1;
};

std::string words(const char *name, int64_t a, const char *rest) { return std::string(name) + std::to_string(a) + rest; }

Tensor tensor(const fovea_tensor &t, const char *name, int64_t batch, const int64_t *grid, int64_t heads, int64_t width) {
    const int64_t sizes[5] = {batch, grid[0], grid[1], grid[2], heads};
    int64_t last = width;
    bool empty = false;
    for (int i = 0; i < 5; ++i) {
        empty |= sizes[i] == 0;
        if (sizes[i] > 1 && (t.stride[i] < 0 || t.stride[i] > (int64_t(1) << 40)))
            refuse(std::string(name) + ": strides must not be negative");
        if (sizes[i] > 1) last += (sizes[i] - 1) * t.stride[i];
    }
    if (!empty && (!t.data || last > t.size))
        refuse(std::string(name) + ": its strides reach element " + std::to_string(last) + " of " + std::to_string(t.size));
    return Tensor{static_cast<char *>(t.data), t.stride[0], {t.stride[1], t.stride[2], t.stride[3]}, t.stride[4]};
}

int64_t modulo(int64_t a, int64_t n) { return (a % n + n) % n; }

// The residue classes of an axis; refuses tables that reach out of it or decrease.
std::vector<ClassAxis> residues(const fovea_axis &axis, int number, bool biased, Prepared &made) {
    const std::string name = "axis " + std::to_string(number);
    if (axis.queries < 0 || axis.keys < 0 || axis.before < 0 || axis.after < 0 || axis.queries > LARGEST ||
        axis.keys > LARGEST || axis.before > LARGEST || axis.after > LARGEST || axis.step < 1 || axis.step > LARGEST)
        refuse(name + ": sizes and padding must be 0 or more and the step 1 or more");
    if (axis.queries && (!axis.start || !axis.stop || !axis.position)) refuse(name + ": its tables are missing");
    std::vector<ClassAxis> found;
    for (int64_t first = 0; first < std::min(axis.step, axis.queries); ++first) {
        const int64_t count = (axis.queries - first + axis.step - 1) / axis.step;
        const int64_t residue = modulo(axis.position[first], axis.step);
        std::vector<int> start(count), stop(count), position(count);
        int64_t low = INT64_MAX, high = INT64_MIN, last_start = INT64_MIN, last_stop = INT64_MIN;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t q = first + i * axis.step, s = axis.start[q], e = axis.stop[q], at = axis.position[q];
            if (std::min({s, e, at}) < -4 * LARGEST || std::max({s, e, at}) > 4 * LARGEST)
                refuse(name + ": query " + std::to_string(q) + " has a span out of all bounds");
            if (modulo(at, axis.step) != residue)
                refuse(name + ": query " + std::to_string(q) + " leaves its residue class");
            position[i] = static_cast<int>((at - residue) / axis.step);
            if (e <= s) {
                start[i] = stop[i] = last_start == INT64_MIN ? 0 : static_cast<int>(last_start);
                continue;
            }
            const int64_t last = s + (e - 1 - s) / axis.step * axis.step;
            if (s < -axis.before || last >= axis.keys + axis.after)
                refuse(name + ": query " + std::to_string(q) + " sees keys " + std::to_string(s) + " to " +
                       std::to_string(last) + "; the axis has " + std::to_string(-axis.before) + " to " +
                       std::to_string(axis.keys + axis.after - 1));
            if (modulo(s, axis.step) != residue)
                refuse(name + ": query " + std::to_string(q) + " starts outside its residue class");
            const int64_t a = (s - residue) / axis.step, b = (last - residue) / axis.step + 1;
            if (a < last_start || b < last_stop)
                refuse(name + ": the span of query " + std::to_string(q) + " starts or stops before its neighbour's");
            if (biased) {
                const int64_t from = a - position[i] - axis.bias_low, to = b - 1 - position[i] - axis.bias_low;
                if (from < 0 || to >= axis.bias_count)
                    refuse(name + ": query " + std::to_string(q) + " needs biases " + std::to_string(from) + " to " +
                           std::to_string(to) + " of " + std::to_string(axis.bias_count));
            }
            last_start = a;
            last_stop = b;
            start[i] = static_cast<int>(a);
            stop[i] = static_cast<int>(b);
            low = std::min(low, a);
            high = std::max(high, b);
        }
        if (low > high) low = high = 0;
        ClassAxis c{};
        c.queries = static_cast<int>(count);
        c.keys = axis.keys > residue ? static_cast<int>((axis.keys - residue + axis.step - 1) / axis.step) : 0;
        c.first_query = first;
        c.first_key = residue;
        c.step = axis.step;
        c.low = static_cast<int>(low);
        c.high = static_cast<int>(high);
        for (auto *table : {&start, &stop, &position}) made.tables.push_back(std::move(*table));
        c.start = made.tables[made.tables.size() - 3].data();
        c.stop = made.tables[made.tables.size() - 2].data();
        c.position = made.tables[made.tables.size() - 1].data();
        found.push_back(c);
    }
    return found;
}

void check_blocks(const fovea_blocks &t, int64_t batch_heads) {
    if (t.size < 1 || t.size > LARGEST || t.queries < 0 || t.keys < 0 || t.queries > LARGEST || t.keys > LARGEST ||
        t.position < 0 || t.position > LARGEST || t.tables < 1 || t.rows < 0 || t.pairs < 0)
        refuse("blocks: sizes must be 0 or more, and the size of a block and the number of tables 1 or more");
    const int64_t rows = t.queries ? (t.position + t.queries - 1) / t.size - t.position / t.size + 1 : 0;
    const int64_t blocks = (t.keys + t.size - 1) / t.size;
    if (t.rows != rows) refuse(words("blocks: the table has ", t.rows, " rows; its queries stand in another number of blocks"));
    if (!t.indptr || (t.pairs && !t.index)) refuse("blocks: the table is missing");
    for (int64_t table = 0; table < t.tables; ++table)
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t *span = t.indptr + table * (rows + 1) + row;
            if (span[0] < 0 || span[1] < span[0] || span[1] > t.pairs)
                refuse(words("blocks: row ", row, " of the table lies outside its index"));
            for (int64_t i = span[0]; i < span[1]; ++i)
                if (t.index[i] < 0 || t.index[i] >= blocks || (i > span[0] && t.index[i] <= t.index[i - 1]))
                    refuse(words("blocks: row ", row, " must list key blocks of the sequence, ascending"));
        }
    if (t.table_of)
        for (int64_t i = 0; i < batch_heads; ++i)
            if (t.table_of[i] < 0 || t.table_of[i] >= t.tables) refuse("blocks: a head asks for a table that is not there");
}

// How the tiles of one axis fit: the lanes computed and the keys used by tiles of so many columns.
struct Fit {
    double cost = 0;
    int64_t lanes = 0, widest = 0;
};

Fit fit(const ClassAxis &x, int across, int lanes, const Plan &p) {
    Fit f;
    for (int first = 0; first < x.queries; first += across) {
        int low = INT32_MAX, high = INT32_MIN;
        for (int i = first; i < std::min(first + across, x.queries); ++i)
            if (x.stop[i] > x.start[i]) {
                low = std::min(low, x.start[i]);
                high = std::max(high, x.stop[i]);
            }
        if (low >= high) continue;
        const int64_t seen = high - low, padded = (seen + lanes - 1) / lanes * lanes;
        f.lanes += padded * across;
        f.widest = std::max(f.widest, seen);
        // Products of logits and weights, softmax, and what a vector and a key cost beside them.
        f.cost += across * (padded * (p.head_dim + 24.0) + seen * double(p.value_dim)) + padded / lanes * 300.0 + seen * 40.0;
    }
    return f;
}

void choose_tiling(Prepared &made) {
    Plan &p = made.plan;
    Tiling &t = p.tiling;
    const Class &c = made.classes[0];
    const ClassAxis &x = c.axis[2];
    int rows = std::min(c.axis[1].queries, MOST_QUERIES);
    for (const Class &each : made.classes)
        for (int i = 0; i < each.axis[1].queries; ++i)
            if (each.axis[1].stop[i] <= each.axis[1].start[i]) rows = 1;
    double best = HUGE_VAL;
    t.tile_columns = 1;
    p.narrow = made.variant->wide;
    for (int across = 1; across <= MOST_QUERIES; across *= 2)
        for (int lanes : {made.variant->wide, made.variant->narrow}) {
            if (across > 1 && across / 2 >= x.queries) continue;
            const Fit f = fit(x, across, lanes, p);
            const int block = across * std::min(rows, std::max(1, MOST_QUERIES / 2 / across));
            const double few = block >= 8 ? 1.0 : block == 4 ? 1.15 : block == 2 ? 1.5 : 2.2;
            const double cost = f.cost * few * (lanes < made.variant->wide ? 1.08 : 1.0);
            if (cost < best) {
                best = cost;
                t.tile_columns = across;
                p.narrow = lanes;
            }
        }
    t.tile_rows = 1;
    while (t.tile_rows * 2 * t.tile_columns <= MOST_QUERIES && t.tile_rows * 2 <= rows &&
           (t.tile_rows < 2 || t.tile_columns >= 4))
        t.tile_rows *= 2;
    const bool line = c.axis[0].queries == 1 && c.axis[1].queries == 1;
    t.columns = line ? 128 : std::max(32, t.tile_columns);
    t.columns = std::min(t.columns, (x.queries + t.tile_columns - 1) / t.tile_columns * t.tile_columns);
    if (p.blocks) t.columns = std::max(t.tile_columns, std::min(256, t.columns));
    int64_t widest = 1;
    for (const Class &each : made.classes) widest = std::max(widest, fit(each.axis[2], t.columns, 1, p).widest);
    t.long_rows = widest > LONG_ROW && !p.blocks;
    if (t.long_rows || p.blocks) p.narrow = made.variant->wide;
    const int64_t row = t.long_rows || p.blocks ? PANEL_LANES : std::max<int64_t>(widest, std::min(p.extra, PANEL_LANES));
    t.pitch = static_cast<int>((row + made.variant->wide - 1 + 15) / 16 * 16);
    if (t.long_rows || p.blocks) t.pitch = PANEL_LANES;
    t.panel_ids = 1;
    for (const Class &each : made.classes) {
        int64_t ids = 1;
        for (int i = 0; i < 2; ++i) ids *= each.axis[i].high - each.axis[i].low;
        if (t.long_rows) ids *= (each.axis[2].high - each.axis[2].low + PANEL_LANES - 1) / PANEL_LANES;
        if (p.blocks)
            ids = (p.blocks->keys + p.blocks->size - 1) / p.blocks->size * ((p.blocks->size + PANEL_LANES - 1) / PANEL_LANES);
        t.panel_ids = std::max(t.panel_ids, ids);
    }
    t.panel_ids += (p.extra + PANEL_LANES - 1) / PANEL_LANES;
    const int64_t bytes = 4 * t.pitch * int64_t(p.head_dim + 2 * p.value_dim + 32);
    t.panels = static_cast<int>(std::max<int64_t>(1, std::min(t.panel_ids, PANEL_BYTES / bytes)));
}

// A copy of the bias in units of log 2, its rows wide enough for vectors that hang over.
void copy_bias(Prepared &made, const float *bias) {
    Plan &p = made.plan;
    int64_t low = 0, high = p.bias_count[2];
    for (const Class &c : made.classes) {
        const ClassAxis &x = c.axis[2];
        for (int first = 0; first < x.queries; first += p.tiling.tile_columns) {
            int from = INT32_MAX, to = INT32_MIN, near = INT32_MAX, far = INT32_MIN;
            for (int i = first; i < std::min(first + p.tiling.tile_columns, x.queries); ++i) {
                near = std::min(near, x.position[i]);
                far = std::max(far, x.position[i]);
                if (x.stop[i] <= x.start[i]) continue;
                from = std::min(from, x.start[i]);
                to = std::max(to, x.stop[i]);
            }
            if (from >= to) continue;
            low = std::min<int64_t>(low, from - made.variant->wide - far - p.bias_low[2]);
            high = std::max<int64_t>(high, to + made.variant->wide - near - p.bias_low[2]);
        }
    }
    p.bias_margin = -low;
    p.bias_pitch = high - low;
    p.bias_head = p.bias_count[0] * p.bias_count[1] * p.bias_pitch;
    made.bias.assign(p.bias_head * p.heads, 0.0f);
    for (int64_t row = 0; row < p.heads * p.bias_count[0] * p.bias_count[1]; ++row)
        for (int64_t i = 0; i < p.bias_count[2]; ++i)
            made.bias[row * p.bias_pitch + p.bias_margin + i] = bias[row * p.bias_count[2] + i] * LOG2E;
    p.bias = made.bias.data();
}

void prepare(Prepared &made, const fovea_problem &q, const fovea_operands *operands) {
    Plan &p = made.plan;
    if (q.axes < 1 || q.axes > 3) refuse(words("axes is ", q.axes, "; it may be 1 to 3"));
    if (q.dtype < 0 || q.dtype > 2) refuse(words("dtype is ", q.dtype, "; it may be 0 to 2"));
    for (int64_t n : {q.batch, q.heads, q.kv_heads, q.head_dim, q.value_dim, q.extra})
        if (n < 0 || n > LARGEST) refuse(words("a size is ", n, "; it must be 0 or more"));
    if (q.kv_heads < 1 || q.heads % q.kv_heads || q.head_dim < 1 || q.value_dim < 1)
        refuse("kv_heads must divide heads, and head_dim and value_dim be at least 1");
    if (q.head_dim > 4096 || q.value_dim > 4096) refuse("head_dim and value_dim may be at most 4096");
    made.variant = variant_of(q.isa < 0 ? best() : q.isa);
    if (!made.variant) refuse(words("isa is ", q.isa, ", a variant that this machine or build does not have"));
    made.threads = std::max(1, std::min<int>(q.threads, 1024));
    p.dtype = q.dtype;
    p.batch = static_cast<int>(q.batch);
    p.heads = static_cast<int>(q.heads);
    p.kv_heads = static_cast<int>(q.kv_heads);
    p.group = p.heads / p.kv_heads;
    p.head_dim = static_cast<int>(q.head_dim);
    p.value_dim = static_cast<int>(q.value_dim);
    p.extra = static_cast<int>(q.extra);
    p.scale = static_cast<float>(q.scale);
    const bool biased = operands && operands->bias;
    std::vector<ClassAxis> axes[3];
    static const int64_t zero = 0, one = 1;
    fovea_axis line{};
    std::vector<int64_t> start, stop, position;
    if (q.blocks) {
        made.blocks = *q.blocks;
        const fovea_blocks &t = made.blocks;
        if (q.axes != 1) refuse("blocks: tables are for sequences of one axis");
        if (biased) refuse("blocks: they take no relative bias");
        check_blocks(t, q.batch * q.heads);
        p.blocks = &made.blocks;
        start.assign(t.queries, 0);
        for (int64_t i = 0; i < t.queries; ++i) {
            stop.push_back(t.causal ? std::min(t.keys, t.position + i + 1) : t.keys);
            position.push_back(0);
        }
        line = fovea_axis{t.queries, t.keys, 1, 0, 0, 0, 0, start.data(), stop.data(), position.data()};
    }
    for (int i = 0; i < 3; ++i) {
        const int given = i - (3 - q.axes);  // shorter grids get leading axes of size 1
        const fovea_axis alone{1, 1, 1, 0, 0, 0, 1, &zero, &one, &zero};
        const fovea_axis &axis = given < 0 ? alone : q.blocks ? line : q.axis[given];
        axes[i] = residues(axis, given, biased, made);
        p.query_size[i] = axis.queries;
        p.key_size[i] = axis.keys;
        p.bias_low[i] = axis.bias_low;
        p.bias_count[i] = axis.bias_count;
        made.bias_table *= biased ? axis.bias_count : 1;
    }
    p.queries = p.query_size[0] * p.query_size[1] * p.query_size[2];
    for (const ClassAxis &z : axes[0])
        for (const ClassAxis &y : axes[1])
            for (const ClassAxis &x : axes[2]) made.classes.push_back(Class{{z, y, x}});
    p.classes = static_cast<int>(made.classes.size());
    p.cls = made.classes.data();
    if (p.classes) choose_tiling(made);
    if (!operands) return;
    const int64_t extra[3] = {q.extra, 1, 1};
    auto spread_grid = [&](const fovea_tensor &t) {
        fovea_tensor s = t;
        for (int i = 2; i >= 0; --i) s.stride[1 + i] = i - (3 - q.axes) < 0 ? 0 : t.stride[1 + i - (3 - q.axes)];
        return s;
    };
    p.query = tensor(spread_grid(operands->query), "query", q.batch, p.query_size, q.heads, q.head_dim);
    p.key = tensor(spread_grid(operands->key), "key", q.batch, p.key_size, q.kv_heads, q.head_dim);
    p.value = tensor(spread_grid(operands->value), "value", q.batch, p.key_size, q.kv_heads, q.value_dim);
    p.out = tensor(spread_grid(operands->out), "out", q.batch, p.query_size, q.heads, q.value_dim);
    p.extra_key = tensor(operands->extra_key, "extra_key", q.batch, extra, q.kv_heads, q.head_dim);
    p.extra_value = tensor(operands->extra_value, "extra_value", q.batch, extra, q.kv_heads, q.value_dim);
    p.lse = operands->lse;
    if (!p.lse && q.batch && p.queries && q.heads) refuse("lse is missing");
    if (biased && p.classes) copy_bias(made, operands->bias);
}

// The axis along which queries are shared out, and in how many parts.
void cut(const Plan &p, int64_t whole, int threads, int &axis, int &parts) {
    axis = 0;
    for (int i = 1; i < 3; ++i)
        if (p.cls[0].axis[i].queries > p.cls[0].axis[axis].queries) axis = i;
    parts = 1;
    if (threads == 1 || (whole % threads == 0) || whole >= 8 * threads) return;
    const int length = p.cls[0].axis[axis].queries, least = axis == 2 ? std::max(p.tiling.tile_columns, 16) : 8;
    parts = std::max(1, std::min<int>(static_cast<int>((4 * threads + whole - 1) / whole), length / least));
}

struct Run {
    const Prepared *made;
    std::atomic<int> next{0};
    std::atomic<bool> failed{false};
    int workers = 1;
    int64_t scratch = 0, rows = 0, largest = 0;
    float *buffers = nullptr, *bias_sums = nullptr;
    int64_t bias_size = 0;
    int group = 1;  // items of one kv head
    bool shared = false;
};

void forward_worker(void *context, int) {
    Run &run = *static_cast<Run *>(context);
    try {
        Memory scratch = allocate(run.scratch);
        for (int i; (i = run.next.fetch_add(1)) < run.made->plan.items;)
            run.made->variant->forward(&run.made->plan, run.made->plan.item + i, scratch.get());
    } catch (const std::bad_alloc &) {
        run.failed = true;
    }
}

// Worker w takes the items w, w + workers, ...: sums of biases do not depend on which thread is faster.
void backward_worker(void *context, int worker) {
    Run &run = *static_cast<Run *>(context);
    const Plan &p = run.made->plan;
    try {
        Memory scratch = allocate(run.scratch), own;
        if (!run.shared) own = allocate(run.largest * 4);
        float *bias = run.bias_sums ? run.bias_sums + worker * run.bias_size : nullptr;
        for (int i = worker; i < p.items; i += run.workers) {
            const Item &item = p.item[i];
            float *buffer = run.shared ? run.buffers + item.buffer : reinterpret_cast<float *>(own.get());
            run.made->variant->backward(&p, &item, scratch.get(), buffer, bias);
            if (run.shared) continue;
            Item alone = item;
            alone.buffer = 0;
            if (!run.made->variant->collect(&p, &alone, 1, buffer, scratch.get())) {
                Memory room = allocate(run.scratch + run.rows * run.made->variant->row(&p) * 4 + 64);
                run.made->variant->collect_exact(&p, item.batch, item.kv_head, room.get(), nullptr);
            }
        }
    } catch (const std::bad_alloc &) {
        run.failed = true;
    }
}

void collect_worker(void *context, int) {
    Run &run = *static_cast<Run *>(context);
    const Plan &p = run.made->plan;
    try {
        Memory scratch = allocate(run.scratch);
        for (int i; (i = run.next.fetch_add(1)) * run.group < p.items;) {
            const Item *items = p.item + int64_t(i) * run.group;
            if (!run.made->variant->collect(&p, items, run.group, run.buffers, scratch.get())) {
                Memory room = allocate(run.scratch + run.rows * run.made->variant->row(&p) * 4 + 64);
                run.made->variant->collect_exact(&p, items->batch, items->kv_head, room.get(), nullptr);
            }
        }
    } catch (const std::bad_alloc &) {
        run.failed = true;
    }
}

constexpr int64_t RANGE = 256, MOST_RANGES = 64;  // keys of a range, at least; ranges of the same keys, at most

// Few queries on a line: ranges of their keys. Empty where the problem is another.
std::vector<Range> ranges_of(const Plan &p) {
    std::vector<Range> found;
    const int64_t plane = p.query_size[0] * p.query_size[1] * p.key_size[0] * p.key_size[1];
    if (plane != 1 || p.queries * p.group > MOST_QUERIES || (p.blocks && p.blocks->table_of)) return found;
    for (int i = 0; i < 2; ++i)
        if (p.cls[0].axis[i].low != 0 || p.cls[0].axis[i].high != 1) return found;  // zero keys around it
    for (int c = 0; c < p.classes; ++c) {
        const ClassAxis &x = p.cls[c].axis[2];
        for (int query = 0; query < x.queries;) {
            Range r{c, 0, 0, query, x.queries - query, x.low, x.high, 0, 0, 0, 0};
            int64_t keys = x.high - x.low;
            if (const fovea_blocks *t = p.blocks) {
                const int64_t row = (t->position + query) / t->size, *span = t->indptr + row - t->position / t->size;
                r.queries = static_cast<int>(std::min<int64_t>(r.queries, (row + 1) * t->size - t->position - query));
                keys = 0;
                for (int64_t i = span[0]; i < span[1]; ++i) keys += std::min(t->size, t->keys - t->index[i] * t->size);
            }
            keys += p.extra;
            r.parts = static_cast<int>(std::max<int64_t>(1, std::min(MOST_RANGES, keys / RANGE)));
            for (int b = 0; b < p.batch; ++b)
                for (int h = 0; h < p.kv_heads; ++h) {
                    r.batch = b;
                    r.kv_head = h;
                    r.first = static_cast<int>(found.size());
                    for (int i = 0; i < r.parts; ++i) {
                        r.from = keys * i / r.parts;
                        r.to = keys * (i + 1) / r.parts;
                        found.push_back(r);
                    }
                }
            query += r.queries;
        }
    }
    return found;
}

struct Decoding {
    const Prepared *made;
    const std::vector<Range> *ranges;
    std::vector<std::atomic<int>> left;  // ranges of the same queries that are not done, at the first of them
    float *partials;
    int64_t scratch, size;
    std::atomic<int> next{0};
    std::atomic<bool> failed{false};
};

// Whoever finishes the last range of some queries joins them, in the order of the ranges.
void decode_worker(void *context, int) {
    Decoding &run = *static_cast<Decoding *>(context);
    const Plan &p = run.made->plan;
    try {
        Memory scratch = allocate(run.scratch);
        for (int i; (i = run.next.fetch_add(1)) < static_cast<int>(run.ranges->size());) {
            const Range &r = (*run.ranges)[i];
            run.made->variant->decode(&p, &r, scratch.get(), run.partials + i * run.size);
            if (run.left[r.first].fetch_sub(1) == 1)
                run.made->variant->join(&p, &(*run.ranges)[r.first], r.parts, run.partials + r.first * run.size, scratch.get());
        }
    } catch (const std::bad_alloc &) {
        run.failed = true;
    }
}

void decode(const Prepared &made, const std::vector<Range> &ranges) {
    const Plan &p = made.plan;
    const int64_t count = static_cast<int64_t>(ranges.size()), size = made.variant->partial(&p);
    Memory partials = allocate(count * size * 4);
    Decoding run{&made, &ranges, std::vector<std::atomic<int>>(ranges.size()), reinterpret_cast<float *>(partials.get()),
                 made.variant->decode_scratch(&p), size};
    int64_t work = 0;
    for (const Range &r : ranges) {
        run.left[r.first] = r.parts;
        work += (r.to - r.from) * r.queries * p.group * (p.head_dim + p.value_dim);
    }
    const int64_t worth = 1 + work / (1 << 17);  // waking a thread takes longer than so many operations
    run_workers(static_cast<int>(std::min({int64_t(made.threads), count, worth})), decode_worker, &run);
    if (run.failed) throw std::bad_alloc();
}

void forward(const fovea_problem &q, const fovea_operands &operands) {
    Prepared made;
    prepare(made, q, &operands);
    Plan &p = made.plan;
    if (!p.batch || !p.heads || !p.queries) return;
    if (const std::vector<Range> ranges = ranges_of(p); !ranges.empty()) return decode(made, ranges);
    int axis, parts;
    cut(p, int64_t(p.batch) * p.kv_heads * p.classes, made.threads, axis, parts);
    for (int b = 0; b < p.batch; ++b)
        for (int h = 0; h < p.kv_heads; ++h)
            for (int c = 0; c < p.classes; ++c)
                for (int part = 0; part < parts; ++part) made.items.push_back(Item{c, b, h, axis, part, parts, {}, {}, 0});
    p.items = static_cast<int>(made.items.size());
    p.item = made.items.data();
    Run run;
    run.made = &made;
    run.scratch = made.variant->scratch(&p, false);
    use_large_pages(operands.out, q.dtype);
    run_workers(std::min(made.threads, p.items), forward_worker, &run);
    if (run.failed) throw std::bad_alloc();
}

// The keys of the grid that the queries of an item see.
void touch(const Plan &p, Item &item) {
    for (int i = 0; i < 3; ++i) {
        int64_t low = INT64_MAX, high = INT64_MIN;
        for (int c = 0; c < p.classes; ++c) {
            const ClassAxis &a = p.cls[c].axis[i];
            const int from = item.axis == i ? share(a.queries, item.part, item.parts) : 0;
            const int to = item.axis == i ? share(a.queries, item.part + 1, item.parts) : a.queries;
            for (int q = from; q < to; ++q) {
                const int first = std::max(a.start[q], 0), last = std::min(a.stop[q], a.keys) - 1;
                if (a.stop[q] <= a.start[q] || last < first) continue;
                low = std::min(low, a.first_key + first * a.step);
                high = std::max(high, a.first_key + last * a.step + 1);
            }
        }
        item.low[i] = low > high ? 0 : low;
        item.size[i] = low > high ? 0 : high - low;
    }
}

void backward(const fovea_problem &q, const fovea_operands &operands, const fovea_gradients &g) {
    Prepared made;
    prepare(made, q, &operands);
    Plan &p = made.plan;
    const int64_t extra[3] = {q.extra, 1, 1};
    auto spread_grid = [&](const fovea_tensor &t) {
        fovea_tensor s = t;
        for (int i = 2; i >= 0; --i) s.stride[1 + i] = i - (3 - q.axes) < 0 ? 0 : t.stride[1 + i - (3 - q.axes)];
        return s;
    };
    p.grad_out = tensor(spread_grid(g.grad_out), "grad_out", q.batch, p.query_size, q.heads, q.value_dim);
    p.grad_query = tensor(spread_grid(g.grad_query), "grad_query", q.batch, p.query_size, q.heads, q.head_dim);
    p.grad_key = tensor(spread_grid(g.grad_key), "grad_key", q.batch, p.key_size, q.kv_heads, q.head_dim);
    p.grad_value = tensor(spread_grid(g.grad_value), "grad_value", q.batch, p.key_size, q.kv_heads, q.value_dim);
    p.grad_extra_key = tensor(g.grad_extra_key, "grad_extra_key", q.batch, extra, q.kv_heads, q.head_dim);
    p.grad_extra_value = tensor(g.grad_extra_value, "grad_extra_value", q.batch, extra, q.kv_heads, q.value_dim);
    p.grad_lse = g.grad_lse;
    const bool biased = operands.bias && g.grad_bias;
    if (biased) std::fill_n(g.grad_bias, p.heads * made.bias_table, 0.0f);
    if (!p.batch || !p.heads || !p.queries) return;  // the caller's gradients of keys start as zeros
    int axis, parts;
    cut(p, int64_t(p.batch) * p.kv_heads, made.threads, axis, parts);
    int64_t floats = 0, largest = 0;
    const int64_t row = made.variant->row(&p);
    for (int b = 0; b < p.batch; ++b)
        for (int h = 0; h < p.kv_heads; ++h)
            for (int part = 0; part < parts; ++part) {
                Item item{-1, b, h, axis, part, parts, {}, {}, floats};
                touch(p, item);
                const int64_t size = (item.size[0] * item.size[1] * item.size[2] + p.extra) * row;
                floats += (size + 15) / 16 * 16;
                largest = std::max(largest, size);
                made.items.push_back(item);
            }
    p.items = static_cast<int>(made.items.size());
    p.item = made.items.data();
    Run run;
    run.made = &made;
    run.workers = std::min(made.threads, p.items);
    run.scratch = made.variant->scratch(&p, true);
    run.rows = p.key_size[0] * p.key_size[1] * p.key_size[2] + p.extra;
    run.group = parts;
    run.shared = parts > 1;
    run.largest = largest + 16;
    Memory buffers;
    if (run.shared) buffers = allocate(floats * 4 + 64);
    run.buffers = reinterpret_cast<float *>(buffers.get());
    std::vector<float> sums;
    if (biased) {
        run.bias_size = p.heads * p.bias_head;
        sums.assign(run.bias_size * run.workers, 0.0f);
        run.bias_sums = sums.data();
    }
    for (const fovea_tensor *t : {&g.grad_query, &g.grad_key, &g.grad_value}) use_large_pages(*t, q.dtype);
    run_workers(run.workers, backward_worker, &run);
    if (run.shared && !run.failed) run_workers(run.workers, collect_worker, &run);
    if (run.failed) throw std::bad_alloc();
    if (!biased) return;
    for (int h = 0; h < p.heads; ++h) {
        float *head = sums.data() + h * p.bias_head;
        auto write = [&] {
            bool nan = false;
            for (int64_t r = 0; r < p.bias_count[0] * p.bias_count[1]; ++r)
                for (int64_t i = 0; i < p.bias_count[2]; ++i) {
                    float sum = 0;
                    for (int w = 0; w < run.workers; ++w)
                        sum += head[w * run.bias_size + r * p.bias_pitch + p.bias_margin + i];
                    nan |= sum != sum;
                    g.grad_bias[h * made.bias_table + r * p.bias_count[2] + i] = sum;
                }
            return nan;
        };
        if (!write()) continue;
        for (int w = 0; w < run.workers; ++w) std::fill_n(head + w * run.bias_size, p.bias_head, 0.0f);
        std::vector<float> exact(run.bias_size, 0.0f);
        Memory room = allocate(run.scratch + run.rows * row * 4 + 64);
        for (int b = 0; b < p.batch; ++b)
            made.variant->collect_exact(&p, b, h / p.group, room.get(), exact.data());
        std::copy_n(exact.data() + h * p.bias_head, p.bias_head, head);
        write();
    }
}

template <class Call> int guarded(char *error, int64_t capacity, Call call) {
    std::string why;
    try {
        call();
        return 0;
    } catch (const std::bad_alloc &) {
        why = "not enough memory";
    } catch (const std::exception &e) {
        why = e.what();
    }
    if (error && capacity > 0) snprintf(error, static_cast<size_t>(capacity), "%s", why.c_str());
    return 1;
}

}  // namespace
}  // namespace fovea

extern "C" {

int fovea_forward(const fovea_problem *problem, const fovea_operands *operands, char *error, int64_t capacity) {
    return fovea::guarded(error, capacity, [&] { fovea::forward(*problem, *operands); });
}

int fovea_backward(const fovea_problem *problem, const fovea_operands *operands, const fovea_gradients *gradients,
                   char *error, int64_t capacity) {
    return fovea::guarded(error, capacity, [&] { fovea::backward(*problem, *operands, *gradients); });
}

int fovea_work(const fovea_problem *problem, int64_t pairs[2], char *error, int64_t capacity) {
    return fovea::guarded(error, capacity, [&] {
        fovea::Prepared made;
        fovea::prepare(made, *problem, nullptr);
        const fovea::Plan &p = made.plan;
        int64_t padded = 0;
        for (const fovea::Class &c : made.classes) {
            int64_t rows[2] = {0, 0};
            for (int i = 0; i < 2; ++i)
                for (int q = 0; q < c.axis[i].queries; ++q) rows[i] += std::max(0, c.axis[i].stop[q] - c.axis[i].start[q]);
            padded += rows[0] * rows[1] * fovea::fit(c.axis[2], p.tiling.tile_columns, p.narrow, p).lanes;
        }
        pairs[0] = padded;
        pairs[1] = p.classes ? int64_t(p.tiling.tile_rows) << 32 | p.tiling.tile_columns : 0;
    });
}

const char *fovea_isa_name(int isa) {
    const fovea::Variant *variant = fovea::variant_of(isa);
    return variant ? variant->name : nullptr;
}

int fovea_best_isa(void) { return fovea::best(); }

void fovea_set_parallel(void *gomp_parallel) { fovea::set_parallel(gomp_parallel); }
}
