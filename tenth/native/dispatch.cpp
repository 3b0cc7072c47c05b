// Which rows go to which expert, and attention of one new token per sequence over a cache.
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

namespace {
struct Decode {
    int64_t rows, heads, kv_heads, key, value;              // widths of a key and a value
    int64_t k_slot, k_time, k_head, v_slot, v_time, v_head; // strides in elements
    float scale;
};

template <class T>
void decode(const Decode& s, const T* q, const T* k, const T* v, const int64_t* slot, const int64_t* length, T* out) {
    int64_t group = s.heads / s.kv_heads;
#pragma omp parallel
    {
        std::vector<float> scores, query(s.key), sum(s.value);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < s.rows; ++r) {
            int64_t n = length[r];
            scores.resize(n);
            for (int64_t h = 0; h < s.heads; ++h) {
                const T* qr = q + (r * s.heads + h) * s.key;
                for (int64_t i = 0; i < s.key; ++i) query[i] = widen(qr[i]) * s.scale;
                const T* keys = k + slot[r] * s.k_slot + h / group * s.k_head;
                const T* values = v + slot[r] * s.v_slot + h / group * s.v_head;
                float top = -INFINITY, total = 0;
                for (int64_t t = 0; t < n; ++t) {
                    const T* key = keys + t * s.k_time;
                    float dot = 0;
#pragma omp simd reduction(+ : dot)
                    for (int64_t i = 0; i < s.key; ++i) dot += query[i] * widen(key[i]);
                    scores[t] = dot;
                    top = std::max(top, dot);
                }
#pragma omp simd reduction(+ : total)
                for (int64_t t = 0; t < n; ++t) { scores[t] = fast_exp(scores[t] - top); total += scores[t]; }
                std::fill(sum.begin(), sum.end(), 0.0f);
                for (int64_t t = 0; t < n; ++t) {
                    const T* value = values + t * s.v_time;
                    float w = scores[t];
#pragma omp simd
                    for (int64_t i = 0; i < s.value; ++i) sum[i] += w * widen(value[i]);
                }
                T* o = out + (r * s.heads + h) * s.value;
                for (int64_t i = 0; i < s.value; ++i) narrow(sum[i] / total, o[i]);
            }
        }
    }
}
}  // namespace

extern "C" void tenth_decode_attention(int is_bf16, const Decode* s, const void* q, const void* k, const void* v, const int64_t* slot,
                                       const int64_t* length, void* out) {
    if (is_bf16) decode(*s, (const bf16*)q, (const bf16*)k, (const bf16*)v, slot, length, (bf16*)out);
    else decode(*s, (const float*)q, (const float*)k, (const float*)v, slot, length, (float*)out);
}
