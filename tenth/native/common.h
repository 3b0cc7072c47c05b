// What every kernel shares: bfloat16, a vectorisable exp, and one small matrix product.
// Portable C++17; the compiler turns the fixed-size loops into the machine's own vectors (-march=native).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

struct bf16 { uint16_t bits; };

static inline float widen(float x) { return x; }
static inline float widen(bf16 x) {
    uint32_t u = uint32_t(x.bits) << 16;
    float f;
    std::memcpy(&f, &u, 4);
    return f;
}
static inline void narrow(float f, float& out) { out = f; }
static inline void narrow(float f, bf16& out) {           // round to nearest, ties to even; NaN stays NaN
    uint32_t u;
    std::memcpy(&u, &f, 4);
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    out.bits = uint16_t((u & 0x7fffffffu) > 0x7f800000u ? ((u >> 16) | 0x40u) : rounded);
}

// exp for arguments <= ~88, relative error about 2e-7: 2^n times a degree-6 polynomial of 2^f, |f| <= 1/2.
static inline float fast_exp(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    float z = x * 1.44269504088896341f;
    float n = std::nearbyint(z);
    float f = z - n;
    float p = 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    int32_t e = (int32_t(n) + 127) << 23;
    float s;
    std::memcpy(&s, &e, 4);
    return p * s;
}

typedef float vec16 __attribute__((vector_size(64), aligned(4), may_alias));

// C[i][c] (+)= sum_k A[i * row_a + k * col_a] * B[k * ldb + c]; m a multiple of 8, n of 16.
template <int COLS>
static inline void tile8(int k, const float* a, long row_a, long col_a, const float* b, long ldb, float* c, long ldc,
                         bool accumulate) {
    vec16 acc[8][COLS];
    for (int i = 0; i < 8; ++i)
        for (int j = 0; j < COLS; ++j)
            acc[i][j] = accumulate ? *(const vec16*)(c + i * ldc + 16 * j) : vec16{};
    for (int p = 0; p < k; ++p) {
        vec16 row[COLS];
        for (int j = 0; j < COLS; ++j) row[j] = *(const vec16*)(b + p * ldb + 16 * j);
        for (int i = 0; i < 8; ++i) {
            float x = a[i * row_a + p * col_a];
            for (int j = 0; j < COLS; ++j) acc[i][j] += x * row[j];
        }
    }
    for (int i = 0; i < 8; ++i)
        for (int j = 0; j < COLS; ++j) *(vec16*)(c + i * ldc + 16 * j) = acc[i][j];
}

static inline void small_gemm(int m, int n, int k, const float* a, long row_a, long col_a, const float* b, long ldb,
                              float* c, long ldc, bool accumulate) {
    for (int i = 0; i < m; i += 8) {
        int j = 0;
        for (; j + 32 <= n; j += 32)
            tile8<2>(k, a + i * row_a, row_a, col_a, b + j, ldb, c + i * ldc + j, ldc, accumulate);
        for (; j < n; j += 16)
            tile8<1>(k, a + i * row_a, row_a, col_a, b + j, ldb, c + i * ldc + j, ldc, accumulate);
    }
}
