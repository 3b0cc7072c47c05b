// What adapters add to products: y += up (down x), a correction of low rank for each row's own adapter (LoRA, arXiv:2106.09685).
// Why: one packed base then serves many adapters in one batch. The first half is done where a row is prepared, the second by
// whoever made the panels of y, so neither needs a barrier of its own. Every sum is one chain in one order, in float32, and
// rows share nothing: batch invariance holds as for the base.
// Mirrored by tenth/engine/native_adapters.py.
#pragma once
#include "panels.h"

enum Site : int64_t { IN, Q_UP, OUT, GATE_UP, DOWN, SITES };   // of a layer; the last two: dense or shared feed-forward

struct LowRank {
    const void *down, *up;                     // (rank, cols) and, in the order of reading, [panel][rank][16]
    const int32_t* spans;                      // (panels, 2) ranks from, to: the parts of a fused matrix have ranks of their own
    int64_t rank, is_bf16;                     // rank: a multiple of four, filled with zeros; 0: none here

    void shrink(const Matrix& m, const float* x, const uint8_t* prepared, float* low) const {
        typed(down, [&](auto* w) {             // a base in bfloat16 sees a rounded row, and so does its adapter
            if (m.kind == BF16) dots(w, (const bf16*)prepared, m.cols, low);
            else dots(w, x, m.cols, low);
        });
    }
    void expand(int64_t panel, const float* low, float* y) const {
        vec16 sum = {};
        typed(up, [&](auto* w) {
            w += panel * rank * 16;
            for (int64_t i = spans[panel * 2]; i < spans[panel * 2 + 1]; ++i) sum += low[i] * load16(w + i * 16);
        });
        store16(load16(y + panel * 16) + sum, y + panel * 16);
    }

private:
    template <class F> void typed(const void* w, F f) const {
        if (is_bf16) f((const bf16*)w);
        else f((const float*)w);
    }
    template <class W, class X> void dots(const W* w, const X* x, int64_t cols, float* low) const {
        for (int64_t i = 0; i < rank; i += 4, w += 4 * cols) {    // four sums at once: one alone would wait for itself
            vec16 sum[4] = {};
            float rest[4] = {};
            int64_t k = 0;
            for (; k + 16 <= cols; k += 16)
                for (int j = 0; j < 4; ++j) sum[j] += load16(w + j * cols + k) * load16(x + k);
            for (; k < cols; ++k)
                for (int j = 0; j < 4; ++j) rest[j] += widen(w[j * cols + k]) * widen(x[k]);
            for (int j = 0; j < 4; ++j) low[i + j] = rest[j] + sum16(sum[j]);
        }
    }
};

struct Adapters {                              // of one batch
    const int32_t* of_row;                     // (rows) which one, -1: none; null: no row has any
    const LowRank* pairs;                      // (adapters, layers, SITES)
    int64_t layers, max_rank;

    const LowRank* at(int64_t row, int64_t layer, Site site) const {
        if (!of_row || of_row[row] < 0) return nullptr;
        const LowRank& pair = pairs[(of_row[row] * layers + layer) * SITES + site];
        return pair.rank ? &pair : nullptr;
    }
};
