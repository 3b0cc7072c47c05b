// What adapters add to products: y += up (down x), a correction of low rank for each row's own adapter (LoRA, arXiv:2106.09685).
// Why: one packed base then serves many adapters in one batch. The first half is done where a row is prepared, the second by
// whoever made the panels of y, so neither needs a barrier of its own. Every sum is one chain in one order, in float32, and
// rows share nothing: batch invariance holds as for the base.
// Mirrored by tenth/engine/native_adapters.py.
#pragma once
#include "panels.h"

enum Site : int64_t { IN, Q_UP, OUT, GATE_UP, DOWN, SITES };   // of a layer; the last two: dense or shared feed-forward

struct LowRank {
    const float *down, *up;                    // (rank, cols) and, in the order of reading, [panel][rank][16]
    const int32_t* spans;                      // (panels, 2) ranks from, to: the parts of a fused matrix have ranks of their own
    int64_t rank;                              // 0: none here

    void shrink(const Matrix& m, const float* x, const uint8_t* prepared, float* low) const {
        auto multiply = [](auto w, auto v) { return w * v; };
        for (int64_t i = 0; i < rank; ++i)     // a base in bfloat16 sees a rounded row, and so does its adapter
            low[i] = m.kind == BF16 ? sum_row(m.cols, multiply, down + i * m.cols, (const bf16*)prepared)
                                    : sum_row(m.cols, multiply, down + i * m.cols, x);
    }
    void expand(int64_t panel, const float* low, float* y) const {
        vec16 sum = {};
        const float* w = up + panel * rank * 16;
        for (int64_t i = spans[panel * 2]; i < spans[panel * 2 + 1]; ++i) sum += low[i] * load16(w + i * 16);
        store16(load16(y + panel * 16) + sum, y + panel * 16);
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
