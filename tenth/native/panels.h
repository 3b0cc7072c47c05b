// Products of few rows with weights that lie packed: y[r][n] = sum_k x[r][k] * W[n][k] + bias[n].
// Why: decoding reads every weight once per step, so a step costs what the reading costs. A matrix lies in panels of 16
// outputs, inner dimension outside, so a product reads it from its first byte to its last, and one vector holds the same
// inner index (or the neighbouring 2, 4) of 16 outputs.
// Every output is one chain of sums over k in ascending order, whatever the number of rows: a row's result never depends
// on its companions. That is what makes the engine batch-invariant.
#pragma once
#include "common.h"

enum Kind : int64_t { F32 = 0, BF16 = 1, I8 = 2, I4 = 3 };

// Quantised weights are symmetric: w = scale * code, one float16 scale per output and `group` inner indices. They lie as
// unsigned bytes (code + 128) or nibbles (code + 8), as the dot-product instruction of four bytes wants it.
struct Matrix {
    const uint8_t* data;                       // null: no such matrix
    const uint16_t* scales;                    // [panel][cols / group][16]
    const float* bias;                         // (rows rounded up to 16) or null
    int64_t rows, cols, kind, group;

    int64_t panels() const { return (rows + 15) / 16; }
    int64_t width() const { return panels() * 16; }
    int64_t panel_bytes() const {
        static const int64_t bytes[] = {64, 32, 16, 8};
        return cols * bytes[kind];
    }
    int64_t groups() const { return cols / group; }
    int32_t offset() const { return kind == I8 ? 128 : 8; }
};

// A row of x in the form that the weights want: float32, bfloat16, or for quantised weights 16-bit integers in two signed
// planes of bytes (x = scale * (256 high + low)), followed by what the codes' offset adds to each group, and the scale.
// 16 bits, not 8: a quantised weight then costs its own error only.
static inline int64_t row_bytes(const Matrix& m) {
    if (m.kind == F32) return m.cols * 4;
    if (m.kind == BF16) return m.cols * 2;
    return (2 * m.cols + m.groups() * 8 + 4 + 63) / 64 * 64;
}
struct Planes {
    int8_t *high, *low;
    int32_t *high_start, *low_start;              // -offset * sum of the plane over each group
    float* scale;
    Planes(const Matrix& m, const uint8_t* row) {
        high = (int8_t*)row;
        low = high + m.cols;
        high_start = (int32_t*)(low + m.cols);
        low_start = high_start + m.groups();
        scale = (float*)(low_start + m.groups());
    }
};

static inline void prepare_row(const Matrix& m, const float* x, uint8_t* row) {
    int64_t n = m.cols;
    if (m.kind == F32) { std::memcpy(row, x, n * 4); return; }
    if (m.kind == BF16) { map_row(n, [](auto v) { return v; }, (bf16*)row, x); return; }
    float top = std::max(row_max(x, n), -row_min(x, n)), sum = sum_row(n, [](auto v) { return v * 0.0f; }, x);
    bool is_finite = top <= 3.0e38f && sum == sum;     // what is not a number must not become one
    float inverse = is_finite && top > 0 ? 32639.0f / top : 0.0f;              // 32639 = 127 * 256 + 127
    Planes p(m, row);
    *p.scale = is_finite ? top / 32639.0f : NAN;
    for (int64_t g = 0; g < m.groups(); ++g) {
        int32_t high_sum = 0, low_sum = 0;
#pragma omp simd reduction(+ : high_sum, low_sum)
        for (int64_t i = g * m.group; i < (g + 1) * m.group; ++i) {
            int32_t q = int32_t(std::nearbyint(x[i] * inverse)), high = (q + 128) >> 8, low = q - high * 256;
            p.high[i] = int8_t(high);
            p.low[i] = int8_t(low);
            high_sum += high;
            low_sum += low;
        }
        p.high_start[g] = -m.offset() * high_sum;
        p.low_start[g] = -m.offset() * low_sum;
    }
}

// One row of W itself, as float32: an embedding is a matrix whose rows are looked up.
static inline float half_to_float(uint16_t h) {
    uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
    float value;
    if (exponent == 0) value = std::ldexp(float(fraction), -24);
    else {
        uint32_t bits = (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
        std::memcpy(&value, &bits, 4);
    }
    return sign ? -value : value;
}
static inline void matrix_row(const Matrix& m, int64_t n, float* out) {
    const uint8_t* panel = m.data + n / 16 * m.panel_bytes();
    int64_t lane = n % 16;
    for (int64_t k = 0; k < m.cols; ++k) {
        if (m.kind == F32) out[k] = ((const float*)panel)[k * 16 + lane];
        else if (m.kind == BF16) out[k] = widen(((const bf16*)panel)[k / 2 * 32 + lane * 2 + k % 2]);
        else {
            float scale = half_to_float(m.scales[(n / 16 * m.groups() + k / m.group) * 16 + lane]);
            if (m.kind == I8) out[k] = scale * (panel[k / 4 * 64 + lane * 4 + k % 4] - 128);
            else out[k] = scale * ((panel[k / 8 * 64 + lane * 4 + k % 4] >> (k % 8 / 4 * 4) & 15) - 8);
        }
    }
}

// Which rows of x, and where y goes.
struct Source {
    const uint8_t* data;
    int64_t stride;                            // bytes
    const int32_t* index;                      // row i is index[i]; null: i
    const uint8_t* row(int64_t i) const { return data + (index ? index[i] : i) * stride; }
};
struct Target {
    float* data;
    int64_t stride;
    bool add;                                  // y += instead of y =
    void put(const Matrix& m, int64_t row, int64_t panel, vec16 sum) const {
        float* at = data + row * stride + panel * 16;
        if (m.bias) sum += load16(m.bias + panel * 16);
        store16(add ? load16(at) + sum : sum, at);
    }
};

// Tiles: R rows of x times C panels. The first rows wait for memory: weights are asked for this many bytes ahead (measured).
constexpr int64_t AHEAD = 8192;

template <int R, int C>
static inline void tile_plain(const Matrix& m, int64_t panel, const uint8_t* const* x, int64_t first, const Target& y) {
    const float* w[C];
    for (int j = 0; j < C; ++j) w[j] = (const float*)(m.data + (panel + j) * m.panel_bytes());
    vec16 sum[R][C] = {};
    int64_t words = m.kind == F32 ? m.cols : m.cols / 2;
    auto loop = [&](auto product) {
        for (int64_t k = 0; k < words; ++k) {
            vec16 column[C];
            for (int j = 0; j < C; ++j) {
                column[j] = load16(w[j] + k * 16);
                if (first == 0) __builtin_prefetch(w[j] + k * 16 + AHEAD / 4);
            }
            for (int i = 0; i < R; ++i) {
                float value = ((const float*)x[i])[k];
                for (int j = 0; j < C; ++j) sum[i][j] = decltype(product)::multiply_add(value, column[j], sum[i][j]);
            }
        }
    };
    if (m.kind == F32) loop(Wide{});
    else loop(Paired{});
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) y.put(m, first + i, panel + j, sum[i][j]);
}

typedef int32_t int16lanes __attribute__((vector_size(64)));
#ifdef __AVX512VNNI__
static inline int16lanes dot4(int16lanes sum, __m512i weights, const int8_t* x) {   // four neighbours of 16 outputs
    int32_t word;
    std::memcpy(&word, x, 4);
    return (int16lanes)_mm512_dpbusd_epi32((__m512i)sum, weights, _mm512_set1_epi32(word));
}
static inline vec16 half16_to_float(const uint16_t* h) { return (vec16)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i*)h)); }
static inline vec16 to_float(int16lanes x) { return (vec16)_mm512_maskz_cvtepi32_ps(0xffff, (__m512i)x); }

template <int R, int C, bool FOUR>
static inline void tile_quantised(const Matrix& m, int64_t panel, const uint8_t* const* x, int64_t first, const Target& y) {
    const uint8_t* w[C];
    const uint16_t* scales[C];
    for (int j = 0; j < C; ++j) {
        w[j] = m.data + (panel + j) * m.panel_bytes();
        scales[j] = m.scales + (panel + j) * m.groups() * 16;
    }
    vec16 sum[R][C] = {};
    const __m512i nibble = _mm512_set1_epi8(15);
    constexpr int PER_LOAD = FOUR ? 8 : 4;
    for (int64_t g = 0; g < m.groups(); ++g) {
        int16lanes high[R][C], low[R][C];
        const int8_t *xh[R], *xl[R];
        for (int i = 0; i < R; ++i) {
            Planes p(m, x[i]);
            xh[i] = p.high + g * m.group;
            xl[i] = p.low + g * m.group;
            for (int j = 0; j < C; ++j) {
                high[i][j] = int16lanes{} + p.high_start[g];
                low[i][j] = int16lanes{} + p.low_start[g];
            }
        }
        for (int64_t k = 0; k < m.group; k += PER_LOAD) {
            for (int j = 0; j < C; ++j) {
                __m512i bytes = _mm512_loadu_si512(w[j]);
                if (first == 0) __builtin_prefetch(w[j] + AHEAD);
                w[j] += 64;
                __m512i part = FOUR ? _mm512_and_si512(bytes, nibble) : bytes;
                for (int i = 0; i < R; ++i) {
                    high[i][j] = dot4(high[i][j], part, xh[i] + k);
                    low[i][j] = dot4(low[i][j], part, xl[i] + k);
                }
                if (!FOUR) continue;
                part = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);
                for (int i = 0; i < R; ++i) {
                    high[i][j] = dot4(high[i][j], part, xh[i] + k + 4);
                    low[i][j] = dot4(low[i][j], part, xl[i] + k + 4);
                }
            }
        }
        for (int j = 0; j < C; ++j) {
            vec16 scale = half16_to_float(scales[j] + g * 16);
            for (int i = 0; i < R; ++i) sum[i][j] += (to_float(high[i][j]) * 256.0f + to_float(low[i][j])) * scale;
        }
    }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) y.put(m, first + i, panel + j, sum[i][j] * *Planes(m, x[i]).scale);
}
#else
template <int R, int C, bool FOUR>
static inline void tile_quantised(const Matrix& m, int64_t panel, const uint8_t* const* x, int64_t first, const Target& y) {
    std::vector<float> weights(m.cols);
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) {
            Planes p(m, x[i]);
            vec16 sum = {};
            for (int lane = 0; lane < 16; ++lane) {
                matrix_row(m, (panel + j) * 16 + lane, weights.data());
                float dot = 0;
                for (int64_t k = 0; k < m.cols; ++k) dot += weights[k] * (256 * p.high[k] + p.low[k]);
                sum[lane] = dot * *p.scale;
            }
            y.put(m, first + i, panel + j, sum);
        }
}
#endif

template <bool PLAIN, int R, int C>
static inline void tile(const Matrix& m, int64_t panel, const uint8_t* const* x, int64_t first, const Target& y) {
    if constexpr (PLAIN) tile_plain<R, C>(m, panel, x, first, y);
    else if (m.kind == I8) tile_quantised<R, C, false>(m, panel, x, first, y);
    else tile_quantised<R, C, true>(m, panel, x, first, y);
}

// One row: one stream is what memory feeds fastest. More rows: as many sums as hide the latency of a multiply-add and fit
// the registers (integers have three per output). Sixteen rows at once are computed while their weights stream by; with
// more than two such passes it is better to use each weight four times from a register.
constexpr int64_t STREAMED = 16, MANY = 32;
static constexpr int64_t panels_at_once(bool is_plain, int64_t rows) {
    if (!is_plain) return rows >= 8 || rows == 1 ? 1 : 2;
    if (rows >= MANY) return 4;
    return rows >= STREAMED || rows == 1 ? 1 : rows >= 4 ? 4 : 2;
}

template <bool PLAIN, int R> static void some_rows(const Matrix& m, int64_t panel, int64_t count, const Source& x, int64_t first, const Target& y) {
    constexpr int C = panels_at_once(PLAIN, R);
    const uint8_t* rows[R];
    for (int i = 0; i < R; ++i) rows[i] = x.row(first + i);
    int64_t j = 0;
    for (; j + C <= count; j += C) tile<PLAIN, R, C>(m, panel + j, rows, first, y);
    for (; j < count; ++j) tile<PLAIN, R, 1>(m, panel + j, rows, first, y);
}

// All rows times the panels [begin, end): what one thread does.
template <bool PLAIN> static void product_of(const Matrix& m, int64_t begin, int64_t end, const Source& x, int64_t rows, const Target& y) {
    int64_t step = panels_at_once(PLAIN, rows);
    for (int64_t panel = begin; panel < end; panel += step) {
        int64_t count = std::min(step, end - panel), i = 0;
        if constexpr (PLAIN)
            for (; rows < MANY && i + STREAMED <= rows; i += STREAMED) some_rows<true, STREAMED>(m, panel, count, x, i, y);
        else
            for (; i + 8 <= rows; i += 8) some_rows<false, 8>(m, panel, count, x, i, y);
        for (; i + 4 <= rows; i += 4) some_rows<PLAIN, 4>(m, panel, count, x, i, y);
        for (; i + 2 <= rows; i += 2) some_rows<PLAIN, 2>(m, panel, count, x, i, y);
        for (; i < rows; ++i) some_rows<PLAIN, 1>(m, panel, count, x, i, y);
    }
}
static inline void product(const Matrix& m, int64_t begin, int64_t end, const Source& x, int64_t rows, const Target& y) {
    if (m.kind == F32 || m.kind == BF16) product_of<true>(m, begin, end, x, rows, y);
    else product_of<false>(m, begin, end, x, rows, y);
}
