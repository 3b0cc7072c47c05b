// Which rows go to which expert, in training.
#include "common.h"

// Counting sort of (token, choice) pairs by expert. Every expert's rows start at offset[e - 1] and are padded to a
// multiple of `bucket`: the matrix library prepares itself once per shape, so there must be few shapes.
// expert (N, K) -> count (E), offset (E) ends, slot (N, K) row of each pair, source (rows) token of each row (padding: 0).
// Returns the number of rows; `source` must hold N * K + E * bucket entries.
extern "C" int64_t tenth_plan_dispatch(const int64_t* expert, int64_t tokens, int64_t k, int64_t experts, int64_t bucket, int64_t* count,
                                       int32_t* offset, int64_t* slot, int64_t* source) {
    std::fill(count, count + experts, 0);
    for (int64_t i = 0; i < tokens * k; ++i) ++count[expert[i]];
    std::vector<int64_t> next(experts);
    int64_t rows = 0;
    for (int64_t e = 0; e < experts; ++e) {
        next[e] = rows;
        rows += (count[e] + bucket - 1) / bucket * bucket;
        offset[e] = int32_t(rows);
    }
    std::fill(source, source + rows, 0);
    for (int64_t i = 0; i < tokens * k; ++i) {
        int64_t at = next[expert[i]]++;
        slot[i] = at;
        source[at] = i / k;
    }
    return rows;
}

// The k best of each row, best first; ties go to the lower index, as in a stable descending sort.
extern "C" void tenth_top_k(const float* x, int64_t rows, int64_t cols, int64_t k, int64_t* index) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        const float* row = x + r * cols;
        int64_t* out = index + r * k;
        for (int64_t j = 0; j < k; ++j) {
            int64_t best = -1;
            for (int64_t i = 0; i < cols; ++i) {
                bool taken = false;
                for (int64_t p = 0; p < j; ++p) taken |= out[p] == i;
                if (!taken && (best < 0 || row[i] > row[best])) best = i;
            }
            out[j] = best;
        }
    }
}
