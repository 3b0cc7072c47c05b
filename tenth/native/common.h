// What every kernel shares: bfloat16, a vectorisable exp, and one small matrix product.
// Portable C++17; the compiler turns the fixed-size loops into the machine's own vectors (-march=native).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

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


// Sixteen floats at once, written out where compilers make poor vectors of plain loops: bfloat16 ends, exp, maxima.
typedef float vec16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t word16 __attribute__((vector_size(64)));
typedef uint16_t half16 __attribute__((vector_size(32)));

static inline vec16 load16(const float* x) { return *(const vec16*)x; }
static inline vec16 load16(const bf16* x) {
    half16 bits;
    std::memcpy(&bits, x, sizeof bits);
#ifdef __AVX512F__
    word16 wide = (word16)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)bits);   // maskz: gcc warns of the plain form
#else
    word16 wide = __builtin_convertvector(bits, word16);
#endif
    return (vec16)(wide << 16);
}
static inline void store16(vec16 x, float* out) { *(vec16*)out = x; }
static inline void store16(vec16 x, bf16* out) {
#ifdef __AVX512BF16__
    __m256bh bits = _mm512_cvtneps_pbh((__m512)x);
    std::memcpy((void*)out, &bits, sizeof bits);
#else
    for (int i = 0; i < 16; ++i) narrow(x[i], out[i]);
#endif
}
static inline float sum16(vec16 x) {
    float sum = 0;
    for (int i = 0; i < 16; ++i) sum += x[i];
    return sum;
}
#ifdef __AVX512F__
static inline vec16 fast_exp(vec16 x) {                   // as above; NaN stays NaN: the second operand wins
    __m512 z = _mm512_maskz_max_ps(0xffff, _mm512_set1_ps(-87.0f), (__m512)x);
    z = _mm512_mul_ps(_mm512_maskz_min_ps(0xffff, _mm512_set1_ps(88.0f), z), _mm512_set1_ps(1.44269504088896341f));
    __m512 n = _mm512_maskz_roundscale_ps(0xffff, z, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec16 f = (vec16)_mm512_sub_ps(z, n), p = vec16{} + 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (vec16)_mm512_maskz_scalef_ps(0xffff, (__m512)p, n);
}
#else
static inline vec16 fast_exp(vec16 x) {
    for (int i = 0; i < 16; ++i) x[i] = fast_exp(x[i]);
    return x;
}
#endif

// 1 / x to the last bit or two; a division unit would take longer than all the rest of a sigmoid.
static inline float reciprocal(float x) { return 1.0f / x; }
static inline vec16 reciprocal(vec16 x) {
#ifdef __AVX512F__
    vec16 r = (vec16)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
    return r * (2.0f - x * r);
#else
    return 1.0f / x;
#endif
}

// out[i] = f(in[i]...), sixteen at a time; f takes floats and vectors alike.
template <class F, class T, class... In> static inline void map_row(int64_t n, F f, T* out, const In*... in) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) store16(f(load16(in + i)...), out + i);
    for (; i < n; ++i) narrow(f(widen(in[i])...), out[i]);
}
// sum of f(in[i]...)
template <class F, class... In> static inline float sum_row(int64_t n, F f, const In*... in) {
    vec16 sum = {};
    float rest = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) sum += f(load16(in + i)...);
    for (; i < n; ++i) rest += f(widen(in[i])...);
    return rest + sum16(sum);
}

// The largest of a row. Sixteen running maxima by hand: compilers keep std::max over floats scalar because of NaN.
template <class T> static inline float row_max(const T* x, int64_t n) {
    float top = -INFINITY;
    vec16 best = top - vec16{};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        vec16 a = load16(x + i);
        best = a > best ? a : best;
    }
    for (; i < n; ++i) top = std::max(top, widen(x[i]));
    for (int j = 0; j < 16; ++j) top = std::max(top, best[j]);
    return top;
}

template <class T> static inline float row_min(const T* x, int64_t n) {
    float least = INFINITY;
    vec16 best = least - vec16{};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        vec16 a = load16(x + i);
        best = a < best ? a : best;
    }
    for (; i < n; ++i) least = std::min(least, widen(x[i]));
    for (int j = 0; j < 16; ++j) least = std::min(least, best[j]);
    return least;
}

// How a product holds its inner dimension: 32-bit words of one float, or of two neighbouring bfloat16 (bf16 dot-product
// instructions, float32 sums: twice the rate and half the memory). `Cell` is one number of a matrix stored row by row;
// such a matrix is a left operand as it stands, its words taken PER_WORD cells at a time. A right operand has its inner
// dimension outside: word [k / PER_WORD][c].
struct Wide {
    typedef float Cell;
    static constexpr int PER_WORD = 1;
    static inline vec16 multiply_add(float a, vec16 b, vec16 sum) { return sum + a * b; }
};

#ifdef __AVX512BF16__
struct Paired {
    typedef bf16 Cell;
    static constexpr int PER_WORD = 2;
    static inline vec16 multiply_add(float a, vec16 b, vec16 sum) {
        return (vec16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(a), (__m512bh)b);
    }
};
#else
typedef Wide Paired;
#endif

// C[i][c] (+)= sum_k A[i * row_a + k * col_a] * B[k * ldb + c] over words k; m a multiple of 8, n of 16; C in float32.
template <class P, int COLS>
static inline void tile8(int k, const float* a, long row_a, long col_a, const float* b, long ldb, float* c, long ldc,
                         bool accumulate) {
    vec16 sum[8][COLS];
    for (int i = 0; i < 8; ++i)
        for (int j = 0; j < COLS; ++j)
            sum[i][j] = accumulate ? *(const vec16*)(c + i * ldc + 16 * j) : vec16{};
    for (int p = 0; p < k; ++p) {
        vec16 row[COLS];
        for (int j = 0; j < COLS; ++j) row[j] = *(const vec16*)(b + p * ldb + 16 * j);
        for (int i = 0; i < 8; ++i) {
            float x = a[i * row_a + p * col_a];
            for (int j = 0; j < COLS; ++j) sum[i][j] = P::multiply_add(x, row[j], sum[i][j]);
        }
    }
    for (int i = 0; i < 8; ++i)
        for (int j = 0; j < COLS; ++j) *(vec16*)(c + i * ldc + 16 * j) = sum[i][j];
}

template <class P>
static inline void small_gemm(int m, int n, int k, const float* a, long row_a, long col_a, const float* b, long ldb,
                              float* c, long ldc, bool accumulate) {
    for (int i = 0; i < m; i += 8) {
        int j = 0;
        for (; j + 32 <= n; j += 32)
            tile8<P, 2>(k, a + i * row_a, row_a, col_a, b + j, ldb, c + i * ldc + j, ldc, accumulate);
        for (; j < n; j += 16)
            tile8<P, 1>(k, a + i * row_a, row_a, col_a, b + j, ldb, c + i * ldc + j, ldc, accumulate);
    }
}
