// Grouped matrix products of experts: rows sorted by expert, one weight matrix per expert.
// Why not the library's: its products split each small matrix over all threads and prepare themselves anew for every row
// count. Here a thread takes whole panels of one expert, any row count costs the same, and rows are gathered on the way.
// bfloat16 only where the processor multiplies it; elsewhere callers use torch's grouped_mm (model/experts.py).
// A group begins at a multiple of 8 rows; widths are multiples of 32. float32 sums.
#include "common.h"

namespace {
constexpr int PANEL = 32;                      // columns of a panel: two vectors

// sum[i] = sum_k A[i][k] * B[k][0..31] over words; A's row i starts at a[i], its words STEP apart; B is [k][PANEL].
template <class P, int STEP> inline void tile(int64_t k, const float* const* a, const float* b, typename P::Cell* const* out) {
    const float *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3], *a4 = a[4], *a5 = a[5], *a6 = a[6], *a7 = a[7];
    vec16 sum[8][2] = {};
    for (int64_t p = 0; p < k; ++p) {
        vec16 low = *(const vec16*)(b + p * PANEL), high = *(const vec16*)(b + p * PANEL + 16);
        const float x[8] = {a0[p * STEP], a1[p * STEP], a2[p * STEP], a3[p * STEP],
                            a4[p * STEP], a5[p * STEP], a6[p * STEP], a7[p * STEP]};
        for (int i = 0; i < 8; ++i) {
            sum[i][0] = P::multiply_add(x[i], low, sum[i][0]);
            sum[i][1] = P::multiply_add(x[i], high, sum[i][1]);
        }
    }
    for (int i = 0; i < 8; ++i) {
        store16(sum[i][0], out[i]);
        store16(sum[i][1], out[i] + 16);
    }
}

// Panel [inner / PER_WORD][PANEL] of a right operand whose inner dimension runs along the rows of `in`: transpose words.
template <class P> void pack_columns(const typename P::Cell* in, int64_t stride, int64_t inner, float* out) {
    for (int64_t k = 0; k < inner / P::PER_WORD; ++k)
        for (int64_t c = 0; c < PANEL; ++c) std::memcpy(out + k * PANEL + c, in + c * stride + k * P::PER_WORD, 4);
}

// The same where the inner dimension runs across rows; `row(r)` is the start of row r's panel.
template <class Row> void pack_rows(Wide, int64_t inner, Row row, float* out) {
    for (int64_t k = 0; k < inner; ++k) std::memcpy(out + k * PANEL, row(k), PANEL * sizeof(float));
}
#ifdef __AVX512BF16__
template <class Row> void pack_rows(Paired, int64_t inner, Row row, float* out) {   // interleave row pairs
    for (int64_t k = 0; k < inner / 2; ++k) {
        const bf16 *low = row(2 * k), *high = row(2 * k + 1);
        uint32_t* words = (uint32_t*)(out + k * PANEL);
#pragma omp simd
        for (int c = 0; c < PANEL; ++c) words[c] = low[c].bits | uint32_t(high[c].bits) << 16;
    }
}
#endif

struct Groups {
    const int32_t* ends;                       // (E,) where each expert's rows and their padding end
    const int64_t* counts;                     // (E,) rows without padding
    int64_t experts;
    int64_t start(int64_t e) const { return e ? ends[e - 1] : 0; }
    int64_t rows(int64_t e) const { return (counts[e] + 7) / 8 * 8; }   // further padding is never looked at
};

// A row of x: by itself, or the token that it stands for.
template <class Cell> struct Rows {
    const Cell* data;
    int64_t width;
    const int64_t* source;                     // null: row r is row r
    const Cell* row(int64_t r) const { return data + (source ? source[r] : r) * width; }
};

// out[r][n] = sum_k x[r][k] * W[e][n][k] (`turned` false) or W[e][k][n] (true), e the expert of row r
template <class P, class Cell = typename P::Cell>
void rows_times_weights(const Groups& g, const Rows<Cell>& x, const Cell* weights, bool turned, Cell* out, int64_t n) {
    constexpr int64_t TASK = 4;                // panels that one task packs and uses
    int64_t k = x.width, tasks_each = (n / PANEL + TASK - 1) / TASK;
#pragma omp parallel
    {
        std::vector<float> panel(k / P::PER_WORD * PANEL);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < g.experts * tasks_each; ++task) {
            int64_t e = task / tasks_each, first = task % tasks_each * TASK * PANEL, start = g.start(e), end = start + g.rows(e);
            if (start == end) continue;
            const Cell* w = weights + e * n * k;
            for (int64_t c = first; c < std::min(first + TASK * PANEL, n); c += PANEL) {
                if (turned) pack_rows(P{}, k, [&](int64_t r) { return w + r * n + c; }, panel.data());
                else pack_columns<P>(w + c * k, k, k, panel.data());
                for (int64_t r = start; r < end; r += 8) {
                    const float* a[8];
                    Cell* o[8];
                    for (int i = 0; i < 8; ++i) {
                        a[i] = (const float*)x.row(r + i);
                        o[i] = out + (r + i) * n + c;
                    }
                    tile<P, 1>(k / P::PER_WORD, a, panel.data(), o);
                }
            }
        }
    }
}

// out[e][m][n] = sum over rows r of expert e of g[r][m] * x[r][n]
template <class P, class Cell = typename P::Cell>
void weight_gradients(const Groups& g, const Rows<Cell>& left, const Rows<Cell>& right, Cell* out) {
    constexpr int64_t TASK = 256;              // rows of one gradient that one task makes
    int64_t m = left.width, n = right.width, tasks_each = (m + TASK - 1) / TASK;
#pragma omp parallel
    {
        std::vector<float> turned, panel;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < g.experts * tasks_each; ++task) {
            int64_t e = task / tasks_each, m0 = task % tasks_each * TASK, m1 = std::min(m0 + TASK, m), start = g.start(e);
            int64_t rows = g.rows(e), inner = rows / P::PER_WORD, size = inner * PANEL;
            Cell* target = out + e * m * n;
            turned.resize(size_t(m1 - m0) / PANEL * size);
            panel.resize(size);
            for (int64_t c = m0; c < m1; c += PANEL)
                pack_rows(P{}, rows, [&](int64_t r) { return left.row(start + r) + c; }, turned.data() + (c - m0) / PANEL * size);
            for (int64_t c = 0; c < n; c += PANEL) {
                pack_rows(P{}, rows, [&](int64_t r) { return right.row(start + r) + c; }, panel.data());
                for (int64_t r = m0; r < m1; r += 8) {
                    const float *from = turned.data() + (r - m0) / PANEL * size + (r - m0) % PANEL, *a[8];
                    Cell* o[8];
                    for (int i = 0; i < 8; ++i) {
                        a[i] = from + i;
                        o[i] = target + (r + i) * n + c;
                    }
                    tile<P, PANEL>(inner, a, panel.data(), o);   // no rows: zeros
                }
            }
        }
    }
}
}  // namespace

// Whether bfloat16 products exist on this processor; float32 ones always do.
extern "C" int tenth_has_bf16_products() { return Paired::PER_WORD == 2; }

// ends, counts: (E,); source: row -> row of x, or null
extern "C" void tenth_grouped_product(int is_bf16, const void* x, const int64_t* source, const void* weights, const int32_t* ends,
                                      const int64_t* counts, void* out, int64_t experts, int64_t k, int64_t n, int turned) {
    Groups g{ends, counts, experts};
    if (!is_bf16) return rows_times_weights<Wide>(g, Rows<float>{(const float*)x, k, source}, (const float*)weights, turned, (float*)out, n);
#ifdef __AVX512BF16__
    rows_times_weights<Paired>(g, Rows<bf16>{(const bf16*)x, k, source}, (const bf16*)weights, turned, (bf16*)out, n);
#endif
}

extern "C" void tenth_grouped_gradient(int is_bf16, const void* left, const void* right, const int64_t* source, const int32_t* ends,
                                       const int64_t* counts, void* out, int64_t experts, int64_t m, int64_t n) {
    Groups g{ends, counts, experts};
    if (!is_bf16) return weight_gradients<Wide>(g, Rows<float>{(const float*)left, m, nullptr}, Rows<float>{(const float*)right, n, source}, (float*)out);
#ifdef __AVX512BF16__
    weight_gradients<Paired>(g, Rows<bf16>{(const bf16*)left, m, nullptr}, Rows<bf16>{(const bf16*)right, n, source}, (bf16*)out);
#endif
}
