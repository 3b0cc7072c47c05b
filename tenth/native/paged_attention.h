// Attention of every row of a batch over the blocks of its own sequence, and the writing of new entries.
// Keys are taken in blocks of 64 positions that start at multiples of 64, with a running maximum and sum. A row's arithmetic is
// thereby the same whether its sequence came in one piece or in chunks, alone or in company.
#pragma once
#include "network.h"

// C[i][c] (+)= sum_k A[i][k] * B[k][c] over words; any number of rows, columns a multiple of 16.
template <class P, int R, int C>
static inline void rows_times(int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool add) {
    vec16 sum[R][C];
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) sum[i][j] = add ? load16(c + i * ldc + 16 * j) : vec16{};
    for (int64_t p = 0; p < k; ++p) {
        vec16 row[C];
        for (int j = 0; j < C; ++j) {
            row[j] = load16(b + p * ldb + 16 * j);
            __builtin_prefetch(b + p * ldb + 16 * j + 1024);   // values lie behind keys, the next head behind both
        }
        for (int i = 0; i < R; ++i)
            for (int j = 0; j < C; ++j) sum[i][j] = P::multiply_add(a[i * lda + p], row[j], sum[i][j]);
    }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) store16(sum[i][j], c + i * ldc + 16 * j);
}
template <class P, int C>
static inline void columns_times(int64_t rows, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool add) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) rows_times<P, 4, C>(k, a + i * lda, lda, b, ldb, c + i * ldc, ldc, add);
    for (; i + 2 <= rows; i += 2) rows_times<P, 2, C>(k, a + i * lda, lda, b, ldb, c + i * ldc, ldc, add);
    for (; i < rows; ++i) rows_times<P, 1, C>(k, a + i * lda, lda, b, ldb, c + i * ldc, ldc, add);
}
template <class P>
static void any_product(int64_t rows, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, bool add) {
    int64_t j = 0;
    for (; j + 64 <= n; j += 64) columns_times<P, 4>(rows, k, a, lda, b + j, ldb, c + j, ldc, add);
    for (; j < n; j += 16) columns_times<P, 1>(rows, k, a, lda, b + j, ldb, c + j, ldc, add);
}

// out[w][r] = in[r][w] for 64 rows of words.
static inline void transpose_words(const float* in, int64_t stride, int64_t words, int64_t rows, float* out) {
    int64_t w = 0;
#ifdef __AVX512F__
    for (; w + 16 <= words; w += 16)
        for (int64_t r = 0; r < rows; r += 16) {
            __m512i a[16], b[16];
            for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(in + std::min(r + i, rows - 1) * stride + w);
            for (int i = 0; i < 16; i += 2) {
                b[i] = _mm512_maskz_unpacklo_epi32(0xffff, a[i], a[i + 1]);
                b[i + 1] = _mm512_maskz_unpackhi_epi32(0xffff, a[i], a[i + 1]);
            }
            for (int i = 0; i < 16; i += 4)
                for (int j = 0; j < 2; ++j) {
                    a[i + 2 * j] = _mm512_maskz_unpacklo_epi64(0xff, b[i + j], b[i + j + 2]);
                    a[i + 2 * j + 1] = _mm512_maskz_unpackhi_epi64(0xff, b[i + j], b[i + j + 2]);
                }
            for (int i = 0; i < 4; ++i) {              // a[4q + i]: rows 4q..4q+3, words i, i + 4, i + 8, i + 12
                __m512i low = _mm512_maskz_shuffle_i32x4(0xffff, a[i], a[4 + i], 0x44), high = _mm512_maskz_shuffle_i32x4(0xffff, a[i], a[4 + i], 0xee);
                __m512i low2 = _mm512_maskz_shuffle_i32x4(0xffff, a[8 + i], a[12 + i], 0x44);
                __m512i high2 = _mm512_maskz_shuffle_i32x4(0xffff, a[8 + i], a[12 + i], 0xee);
                b[i] = _mm512_maskz_shuffle_i32x4(0xffff, low, low2, 0x88);
                b[4 + i] = _mm512_maskz_shuffle_i32x4(0xffff, low, low2, 0xdd);
                b[8 + i] = _mm512_maskz_shuffle_i32x4(0xffff, high, high2, 0x88);
                b[12 + i] = _mm512_maskz_shuffle_i32x4(0xffff, high, high2, 0xdd);
            }
            for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + (w + i) * BLOCK + r, b[i]);
        }
#endif
    for (; w < words; ++w)
        for (int64_t r = 0; r < rows; ++r) out[w * BLOCK + r] = in[r * stride + w];
}

// Half-split rotation in place: entry j turns with entry j + half.
static inline void rotate(float* x, int64_t half, const float* cos, const float* sin) {
    for (int64_t j = 0; j < half; ++j) {
        float a = x[j], b = x[j + half];
        x[j] = a * cos[j] - b * sin[j];
        x[j + half] = b * cos[j] + a * sin[j];
    }
}

// Rounds n numbers to bytes times a scale; returns the scale.
static inline float quantise(const float* x, int64_t n, int8_t* out, int64_t step) {
    float top = 0;
    for (int64_t i = 0; i < n; ++i) top = std::max(top, std::fabs(x[i]));
    float inverse = top > 0 && top <= 3.0e38f ? 127.0f / top : 0.0f;
    for (int64_t i = 0; i < n; ++i) out[i * step] = int8_t(std::nearbyint(x[i] == x[i] ? x[i] * inverse : 0.0f));
    for (int64_t i = 0; i < n; ++i) if (x[i] != x[i]) return NAN;
    return top / 127.0f;
}

// One cached head of one sequence, query rows [begin, begin + count) of its (token, head of the group) pairs.
struct Item { int64_t sequence, head, begin, count; };

template <class P> struct PagedAttention {
    typedef typename P::Cell Cell;
    static constexpr int64_t PW = P::PER_WORD;

    const Attention& a;
    const Cache& cache;
    const Batch& batch;
    int64_t layer;

    uint8_t* block_of(int64_t sequence, int64_t position) const {
        return cache.at(batch.tables[sequence * batch.table_width + position / BLOCK], layer);
    }
    int64_t head_cells() const { return (a.key_width() + a.value_width()) * BLOCK; }
    float* scales(uint8_t* block) const {
        return (float*)(block + (a.is_latent() ? a.key_width() * BLOCK : a.kv_heads * head_cells()));
    }

    // New entries, keys already rotated: k (key width) and v (value width) of one cached head. The newest entry of a sequence
    // clears the other half of its pair, which is multiplied by a zero weight and must be finite.
    void store_head(uint8_t* block, int64_t slot, int64_t head, const float* k, const float* v, bool is_newest) const {
        int64_t keys = a.key_width(), values = a.value_width();
        bool clears_partner = PW == 2 && slot % 2 == 0 && is_newest;
        if (cache.is_int8) {
            int8_t *kc = (int8_t*)block + head * head_cells(), *vc = kc + keys * BLOCK;
            std::vector<int8_t> bytes(std::max(keys, values));
            float* scale = scales(block) + head * 2 * BLOCK;
            scale[slot] = quantise(k, keys, bytes.data(), 1);
            for (int64_t i = 0; i < keys; ++i) kc[(i / PW * BLOCK + slot) * PW + i % PW] = bytes[i];
            scale[BLOCK + slot] = quantise(v, values, bytes.data(), 1);
            for (int64_t i = 0; i < values; ++i) vc[(slot / PW * values + i) * PW + slot % PW] = bytes[i];
            if (clears_partner) scale[BLOCK + slot + 1] = 0;
            return;
        }
        Cell *kc = (Cell*)block + head * head_cells(), *vc = kc + keys * BLOCK;
        for (int64_t i = 0; i < keys; ++i) narrow(k[i], kc[(i / PW * BLOCK + slot) * PW + i % PW]);
        for (int64_t i = 0; i < values; ++i) {
            narrow(v[i], vc[(slot / PW * values + i) * PW + slot % PW]);
            if (clears_partner) narrow(0.0f, vc[(slot / PW * values + i) * PW + 1]);
        }
    }
    void store_latent(uint8_t* block, int64_t slot, const float* entry) const {
        int64_t width = a.key_width();
        if (cache.is_int8) {
            int8_t* at = (int8_t*)block + slot * width;
            scales(block)[slot * 2] = quantise(entry, a.latent, at, 1);
            scales(block)[slot * 2 + 1] = quantise(entry + a.latent, a.rope, at + a.latent, 1);
        } else map_row(width, [](auto x) { return x; }, (Cell*)block + slot * width, entry);
    }

    struct Scratch {
        std::vector<float> query, keys, values, late, scores, weights, sum, top, total, rows;
        int64_t first;                         // position of the first key that exists
    };

    // query(row, head) -> key_width floats, written by `load_query`; result (value width) goes to out(row, head)
    template <class Query, class Out> void run(const Item& item, Scratch& s, Query load_query, Out out) const {
        int64_t keys = a.key_width(), values = a.value_width(), group = a.group(), count = item.count;
        int64_t key_words = keys / PW;
        auto token = [&](int64_t i) { return batch.starts[item.sequence] + (item.begin + i) / group; };
        auto head = [&](int64_t i) { return item.head * group + (item.begin + i) % group; };
        s.query.resize(count * key_words);
        s.scores.resize(count * BLOCK);
        s.weights.resize(count * BLOCK / PW);
        s.sum.assign(count * values, 0.0f);
        s.top.assign(count, -INFINITY);
        s.total.assign(count, 0.0f);
        s.rows.resize(keys);
        s.first = batch.firsts ? batch.firsts[item.sequence] : 0;
        for (int64_t i = 0; i < count; ++i) {
            load_query(token(i), head(i), s.rows.data());
            map_row(keys, [](auto x) { return x; }, (Cell*)(s.query.data() + i * key_words), s.rows.data());
        }
        int64_t longest = batch.positions[token(count - 1)] + 1;
        for (int64_t start = s.first / BLOCK * BLOCK; start < longest; start += BLOCK) {
            int64_t filled = std::min(BLOCK, longest - start), value_stride = values;
            const float *key_panel, *value_panel, *key_scales = nullptr, *value_scales = nullptr;
            uint8_t* block = block_of(item.sequence, start);
            if (a.is_latent()) unpack_latent(block, filled, s, key_panel, value_panel, value_stride);
            else unpack_head(block, item.head, filled, s, key_panel, value_panel, key_scales, value_scales);
            if (s.first > start) value_panel = without_first(value_panel, value_stride, s.first - start, filled, s);
            any_product<P>(count, (filled + 15) / 16 * 16, key_words, s.query.data(), key_words, key_panel, BLOCK, s.scores.data(), BLOCK, false);
            for (int64_t i = 0; i < count; ++i)
                weigh(i, std::min(filled, batch.positions[token(i)] + 1 - start), start, key_scales, value_scales, values, s);
            any_product<P>(count, values, (filled + PW - 1) / PW, s.weights.data(), BLOCK / PW, value_panel, value_stride, s.sum.data(), values, true);
        }
        for (int64_t i = 0; i < count; ++i) {
            float inverse = 1.0f / s.total[i], *to = out(token(i), head(i));
            for (int64_t j = 0; j < values; ++j) to[j] = s.sum[i * values + j] * inverse;
        }
    }

private:
    // A copy of the values in which those before the first are zeros: nobody has written them, and 0 * NaN is NaN.
    const float* without_first(const float* values, int64_t& stride, int64_t first, int64_t filled, Scratch& s) const {
        int64_t width = a.value_width(), words = (filled + PW - 1) / PW;
        s.late.assign(words * width, 0.0f);
        for (int64_t w = first / PW; w < words; ++w) std::memcpy(s.late.data() + w * width, values + w * stride, width * 4);
        if (first % PW)
            for (int64_t i = 0; i < width; ++i) narrow(0.0f, ((Cell*)s.late.data())[(first / PW * width + i) * PW]);
        stride = width;
        return s.late.data();
    }

    // Scores of row i against one block -> weights, with the running maximum moved on.
    void weigh(int64_t i, int64_t visible, int64_t start, const float* key_scales, const float* value_scales, int64_t values, Scratch& s) const {
        float* score = s.scores.data() + i * BLOCK;
        Cell* weight = (Cell*)(s.weights.data() + i * BLOCK / PW);
        visible = std::max<int64_t>(visible, 0);
        for (int64_t t = 0; t < visible; ++t) score[t] *= key_scales ? a.scale * key_scales[t] : a.scale;
        for (int64_t t = visible; t < BLOCK; ++t) score[t] = -INFINITY;
        for (int64_t t = 0; t < std::min(s.first - start, BLOCK); ++t) score[t] = -INFINITY;
        float top = std::max(s.top[i], row_max(score, BLOCK));
        if (top == -INFINITY) {                            // nothing seen yet
            std::memset((void*)weight, 0, BLOCK * sizeof(Cell));
            return;
        }
        float keep = s.top[i] == -INFINITY ? 0.0f : fast_exp(s.top[i] - top);
        vec16 total = {};
        for (int64_t t = 0; t < BLOCK; t += 16) {
            vec16 x = load16(score + t), e = fast_exp(x - top);
            e = x == -INFINITY - vec16{} ? vec16{} : e;
            total += e;
            if (value_scales) e = t + 16 <= visible ? e * load16(value_scales + t) : scaled_part(e, value_scales + t, visible - t);
            store16(e, weight + t);
        }
        s.total[i] = s.total[i] * keep + sum16(total);
        if (!(s.total[i] == s.total[i])) s.total[i] = NAN;
        s.top[i] = top;
        if (keep != 1.0f)
            for (int64_t j = 0; j < values; ++j) s.sum[i * values + j] *= keep;
    }
    static vec16 scaled_part(vec16 e, const float* scales, int64_t n) {
        for (int64_t t = 0; t < 16; ++t) e[t] = t < n ? e[t] * scales[t] : 0.0f;
        return e;
    }

    void unpack_head(uint8_t* block, int64_t head, int64_t filled, Scratch& s, const float*& keys, const float*& values,
                     const float*& key_scales, const float*& value_scales) const {
        int64_t k = a.key_width() * BLOCK, v = a.value_width() * BLOCK;
        if (!cache.is_int8) {
            keys = (const float*)((const Cell*)block + head * head_cells());
            values = (const float*)((const Cell*)block + head * head_cells() + k);
            return;
        }
        const int8_t* from = (const int8_t*)block + head * head_cells();
        s.keys.resize(k / PW);
        s.values.resize(v / PW);
        widen_bytes(from, k, (Cell*)s.keys.data());
        widen_bytes(from + k, (filled + PW - 1) / PW * PW * a.value_width(), (Cell*)s.values.data());
        keys = s.keys.data();
        values = s.values.data();
        key_scales = scales(block) + head * 2 * BLOCK;
        value_scales = key_scales + BLOCK;
    }
    static void widen_bytes(const int8_t* from, int64_t n, Cell* to) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) narrow(float(from[i]), to[i]);
    }

    void unpack_latent(uint8_t* block, int64_t filled, Scratch& s, const float*& keys, const float*& values, int64_t& value_stride) const {
        int64_t width = a.key_width();
        const Cell* rows = (const Cell*)block;
        if (cache.is_int8) {
            s.rows.resize(BLOCK * width);
            const int8_t* from = (const int8_t*)block;
            Cell* to = (Cell*)s.rows.data();
            for (int64_t t = 0; t < filled; ++t) {
                const float* scale = scales(block) + t * 2;
                for (int64_t i = 0; i < width; ++i) narrow(from[t * width + i] * scale[i >= a.latent], to[t * width + i]);
            }
            rows = to;
        }
        s.keys.resize(width / PW * BLOCK);
        transpose_words((const float*)rows, width / PW, width / PW, filled, s.keys.data());
        keys = s.keys.data();
        if (PW == 1) {
            values = (const float*)rows;
            value_stride = width;
            return;
        }
        s.values.resize(BLOCK / 2 * a.latent);
        for (int64_t t = 0; t < filled; t += 2) {          // words of two neighbouring positions
            const uint16_t *low = (const uint16_t*)(rows + t * width), *high = (const uint16_t*)(rows + (t + 1) * width);
            uint32_t* to = (uint32_t*)(s.values.data() + t / 2 * a.latent);
            bool has_high = t + 1 < filled;
#pragma omp simd
            for (int64_t i = 0; i < a.latent; ++i) to[i] = low[i] | (has_high ? uint32_t(high[i]) << 16 : 0u);
        }
        values = s.values.data();
    }
};
