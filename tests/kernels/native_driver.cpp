// Runs the CPU kernels on arrays of exactly the size they may touch, for address and undefined-behaviour sanitizers.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <random>
#include <vector>

#include "fovea_native.h"

namespace {

std::mt19937 source(7);
int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(source); }

struct Array {
    std::vector<float> numbers;  // 16-bit types use half of the bytes
    fovea_tensor form{};
    Array(int dtype, int64_t batch, std::vector<int64_t> grid, int64_t heads, int64_t width) {
        int64_t size = batch * heads * width;
        for (int64_t n : grid) size *= n;
        numbers.resize(dtype ? (size + 1) / 2 : size);
        if (dtype) {
            auto *halves = reinterpret_cast<uint16_t *>(numbers.data());
            for (int64_t i = 0; i < size; ++i) halves[i] = static_cast<uint16_t>(draw(0x3000, 0x3c00));
        } else {
            for (float &x : numbers) x = std::normal_distribution<float>()(source);
        }
        form.data = numbers.data();
        form.size = size;
        int64_t step = width;
        form.stride[4] = step;
        step *= heads;
        for (int i = static_cast<int>(grid.size()) - 1; i >= 0; --i) {
            form.stride[1 + i] = step;
            step *= grid[i];
        }
        form.stride[0] = step;
    }
};

struct Table {
    std::vector<int64_t> start, stop, position;
    fovea_axis axis{};
};

// A neighborhood with dilation, or blocks with a halo of zero keys.
Table table(int n) {
    Table t;
    const bool halo = draw(0, 1);
    const int dilation = halo ? 1 : draw(1, std::max(1, n / 3)), window = halo ? 1 : draw(1, n / dilation);
    const int block = draw(1, 5), margin = draw(0, 3);
    for (int i = 0; i < n; ++i) {
        int start, stop;
        if (halo) {
            start = i / block * block - margin;
            stop = start + block + 2 * margin;
        } else {
            const int group = i % dilation, members = (n - group + dilation - 1) / dilation;
            start = std::min(std::max(i / dilation - window / 2, 0), members - window) * dilation + group;
            stop = start + (window - 1) * dilation + 1;
        }
        t.start.push_back(start);
        t.stop.push_back(stop);
        t.position.push_back(i);
    }
    const int reach = halo ? block + margin - 1 : window - 1;
    t.axis = fovea_axis{n, n, dilation, halo ? margin : 0, halo ? margin + block : 0, -reach, 2 * reach + 1,
                        t.start.data(), t.stop.data(), t.position.data()};
    return t;
}

int run(const fovea_problem &p, std::vector<int64_t> grid, std::vector<int64_t> key_grid, bool biased) {
    Array q(p.dtype, p.batch, grid, p.heads, p.head_dim), k(p.dtype, p.batch, key_grid, p.kv_heads, p.head_dim);
    Array v(p.dtype, p.batch, key_grid, p.kv_heads, p.value_dim), o(p.dtype, p.batch, grid, p.heads, p.value_dim);
    Array ek(p.dtype, p.batch, {p.extra}, p.kv_heads, p.head_dim), ev(p.dtype, p.batch, {p.extra}, p.kv_heads, p.value_dim);
    Array dq = q, dk = k, dv = v, dout = o, dek = ek, dev = ev;
    for (Array *a : {&dq, &dk, &dv, &dout, &dek, &dev}) a->form.data = a->numbers.data();
    int64_t queries = 1, biases = p.heads;
    for (int64_t n : grid) queries *= n;
    for (int i = 0; i < p.axes; ++i) biases *= p.axis[i].bias_count;
    std::vector<float> bias(biased ? biases : 0, 0.5f), dbias(bias.size()), lse(p.batch * queries * p.heads), dlse(lse.size(), 1);
    fovea_operands x{q.form, k.form, v.form, ek.form, ev.form, o.form, biased ? bias.data() : nullptr, lse.data()};
    fovea_gradients g{dout.form, dq.form, dk.form, dv.form, dek.form, dev.form, dlse.data(), biased ? dbias.data() : nullptr};
    char why[256] = "";
    if (fovea_forward(&p, &x, why, sizeof why) || fovea_backward(&p, &x, &g, why, sizeof why)) {
        printf("refused: %s\n", why);
        return 1;
    }
    if (!p.dtype)
        for (const Array *a : {&o, &dq, &dk, &dv, &dek, &dev})
            for (float f : a->numbers)
                if (!std::isfinite(f)) return printf("not finite\n"), 1;
    return 0;
}

}  // namespace

int main() {
    int failed = 0;
    for (int round = 0; round < 60; ++round) {
        fovea_problem p{};
        p.dtype = draw(0, 2);
        p.axes = draw(1, 3);
        p.threads = draw(1, 3);
        p.isa = -1;
        p.batch = draw(1, 2);
        p.kv_heads = draw(1, 2);
        p.heads = p.kv_heads * draw(1, 2);
        p.head_dim = draw(1, 37);
        p.value_dim = draw(1, 37);
        p.extra = draw(0, 1) * draw(1, 70);
        p.scale = 0.3;
        std::vector<int64_t> grid;
        std::vector<Table> tables;
        for (int i = 0; i < p.axes; ++i) {
            const int n = draw(1, p.axes == 1 ? 300 : p.axes == 2 ? 21 : 8);
            grid.push_back(n);
            tables.push_back(table(n));
        }
        for (int i = 0; i < p.axes; ++i) p.axis[i] = tables[i].axis;
        failed += run(p, grid, grid, draw(0, 1));
        // Tables that reach out of the grid, decrease or leave their class never get as far as a kernel.
        Table bad = tables[0];
        const int at = draw(0, static_cast<int>(grid[0]) - 1), how = draw(0, 2);
        if (how == 0) bad.start[at] = -1000;
        if (how == 1) bad.stop[at] = grid[0] + 1000;
        if (how == 2) bad.start[at] = INT64_MIN;
        bad.axis.start = bad.start.data();
        bad.axis.stop = bad.stop.data();
        p.axis[0] = bad.axis;
        int64_t pairs[2];
        char why[256] = "";
        if (!fovea_work(&p, pairs, why, sizeof why)) failed += printf("a bad table was taken\n") > 0;
    }
    for (int round = 0; round < 12; ++round) {
        const bool few = round % 2;  // queries enough for one pass over keys where they lie
        const int size = draw(3, 90), keys = draw(1, 500), tables = few ? 1 : draw(1, 2);
        const int position = few ? std::max(0, keys - draw(1, 7)) : draw(0, keys - 1);
        fovea_blocks t{};
        std::vector<int64_t> indptr, index;
        const int64_t rows = (keys - 1) / size - position / size + 1;
        for (int n = 0; n < tables; ++n) {
            indptr.push_back(static_cast<int64_t>(index.size()));
            for (int64_t r = 0; r < rows; ++r) {
                for (int64_t j = 0; j <= position / size + r; ++j)
                    if (j == position / size + r || draw(0, 2) == 0) index.push_back(j);
                indptr.push_back(static_cast<int64_t>(index.size()));
            }
        }
        std::vector<int64_t> table_of;
        fovea_problem p{};
        p.axes = 1;
        p.threads = 2;
        p.isa = -1;
        p.batch = 1;
        p.heads = p.kv_heads = 2;
        p.head_dim = p.value_dim = draw(1, 20);
        p.scale = 0.3;
        for (int h = 0; h < 2; ++h) table_of.push_back(draw(0, tables - 1));
        t = fovea_blocks{size, keys - position, keys, position, rows, tables, static_cast<int64_t>(index.size()), 1,
                         indptr.data(), index.data(), few ? nullptr : table_of.data()};
        p.blocks = &t;
        failed += run(p, {keys - position}, {keys}, false);
    }
    for (int round = 0; round < 30; ++round) {  // the last tokens of a sequence against all of it
        const int keys = draw(1, 1500), queries = draw(1, std::min(keys, 7)), window = draw(1, keys), step = draw(1, 3);
        std::vector<int64_t> start, stop, position;
        for (int i = 0; i < queries; ++i) {
            const int at = keys - queries + i;
            start.push_back(at - std::min(window - 1, at / step) * step);
            stop.push_back(at + 1);
            position.push_back(at);
        }
        fovea_problem p{};
        p.dtype = draw(0, 2);
        p.axes = 1;
        p.threads = draw(1, 3);
        p.isa = -1;
        p.batch = draw(1, 2);
        p.kv_heads = draw(1, 2);
        p.heads = p.kv_heads * draw(1, 2);
        p.head_dim = draw(1, 70);
        p.value_dim = draw(1, 70);
        p.extra = draw(0, 1) * draw(1, 300);
        p.scale = 0.3;
        p.axis[0] = fovea_axis{queries, keys, step, 0, 0, 1 - keys, keys, start.data(), stop.data(), position.data()};
        failed += run(p, {queries}, {keys}, draw(0, 1));
    }
    printf("%d failed\n", failed);
    return failed != 0;
}
