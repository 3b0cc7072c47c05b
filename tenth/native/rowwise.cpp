// Row-wise kernels for training on a CPU, forward and backward: RMSNorm, SwiGLU, cross-entropy.
// Each reads its input once and writes its output once; torch's eager twins make three to eight passes.
// float32 inside, float32 or bfloat16 outside. Rows are dense, `cols` long.
#include "common.h"

namespace {
template <class T>
void rms_forward(const T* x, const float* weight, T* y, float* inverse, int64_t rows, int64_t cols, int64_t stride, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        const T* in = x + r * stride;
        T* out = y + r * cols;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < cols; ++i) { float a = widen(in[i]); sum += a * a; }
        float inv = 1.0f / std::sqrt(sum / float(cols) + eps);
        inverse[r] = inv;
#pragma omp simd
        for (int64_t i = 0; i < cols; ++i) narrow(widen(in[i]) * inv * weight[i], out[i]);
    }
}

// dx = inv * (w*g - x * inv^2 * mean(w*g*x)); dw = sum_rows g * x * inv
template <class T>
void rms_backward(const T* x, const float* weight, const float* inverse, const T* grad, T* dx, float* dweight, int64_t rows,
                  int64_t cols, int64_t stride, int threads) {
    std::vector<float> partial((size_t)threads * cols, 0.0f);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int part = 0; part < threads; ++part) {
        float* dw = partial.data() + (size_t)part * cols;
        for (int64_t r = rows * part / threads; r < rows * (part + 1) / threads; ++r) {
            const T *in = x + r * stride, *g = grad + r * cols;
            T* out = dx + r * cols;
            float inv = inverse[r], dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int64_t i = 0; i < cols; ++i) dot += widen(g[i]) * weight[i] * widen(in[i]);
            float c = dot * inv * inv / float(cols);
#pragma omp simd
            for (int64_t i = 0; i < cols; ++i) {
                float a = widen(in[i]), b = widen(g[i]);
                dw[i] += b * a * inv;
                narrow(inv * (b * weight[i] - a * c), out[i]);
            }
        }
    }
    for (int64_t i = 0; i < cols; ++i) {
        float sum = 0;
        for (int part = 0; part < threads; ++part) sum += partial[(size_t)part * cols + i];
        dweight[i] = sum;
    }
}

// x holds [gate, up] side by side: y = silu(gate) * up
template <class T> void swiglu_forward(const T* x, T* y, int64_t rows, int64_t cols) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        const T *gate = x + r * 2 * cols, *up = gate + cols;
        T* out = y + r * cols;
#pragma omp simd
        for (int64_t i = 0; i < cols; ++i) {
            float a = widen(gate[i]);
            narrow(a / (1.0f + fast_exp(-a)) * widen(up[i]), out[i]);
        }
    }
}

template <class T> void swiglu_backward(const T* x, const T* grad, T* dx, int64_t rows, int64_t cols) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        const T *gate = x + r * 2 * cols, *up = gate + cols, *g = grad + r * cols;
        T *dgate = dx + r * 2 * cols, *dup = dgate + cols;
#pragma omp simd
        for (int64_t i = 0; i < cols; ++i) {
            float a = widen(gate[i]), s = 1.0f / (1.0f + fast_exp(-a)), b = widen(g[i]);
            narrow(b * widen(up[i]) * s * (1.0f + a * (1.0f - s)), dgate[i]);
            narrow(b * a * s, dup[i]);
        }
    }
}

// Per row: loss = weight * (logsumexp - logit[target]); the logits become their own gradient, weight * (p - onehot).
template <class T>
void cross_entropy(T* logits, const int64_t* target, const float* weight, float* loss, int64_t rows, int64_t cols) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        T* x = logits + r * cols;
        float top = row_max(x, cols), sum = 0, w = weight[r];
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < cols; ++i) sum += fast_exp(widen(x[i]) - top);
        float chosen = widen(x[target[r]]);
        loss[r] = w * (top + std::log(sum) - chosen);
        float scale = w / sum;
        float exact = w * (fast_exp(chosen - top) / sum - 1.0f);
#pragma omp simd
        for (int64_t i = 0; i < cols; ++i) narrow(scale * fast_exp(widen(x[i]) - top), x[i]);
        narrow(exact, x[target[r]]);
    }
}

// out[n] = sum_k weight[n][k] * y[slot[n][k]]: every token collects its experts' answers
template <class T>
void combine(const T* y, const int64_t* slot, const float* weight, T* out, int64_t rows, int64_t k, int64_t cols) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
        T* o = out + n * cols;
        for (int64_t c0 = 0; c0 < cols; c0 += 256) {
            float sum[256] = {};
            int64_t width = std::min<int64_t>(256, cols - c0);
            for (int64_t j = 0; j < k; ++j) {
                const T* in = y + slot[n * k + j] * cols + c0;
                float w = weight[n * k + j];
#pragma omp simd
                for (int64_t i = 0; i < width; ++i) sum[i] += w * widen(in[i]);
            }
#pragma omp simd
            for (int64_t i = 0; i < width; ++i) narrow(sum[i], o[c0 + i]);
        }
    }
}

// dy[slot] = weight * grad[n] (slots are distinct), dweight[n][k] = <grad[n], y[slot]>
template <class T>
void combine_backward(const T* y, const int64_t* slot, const float* weight, const T* grad, T* dy, float* dweight, int64_t rows,
                      int64_t k, int64_t cols) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
        const T* g = grad + n * cols;
        for (int64_t j = 0; j < k; ++j) {
            int64_t at = slot[n * k + j] * cols;
            float w = weight[n * k + j], dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int64_t i = 0; i < cols; ++i) {
                float b = widen(g[i]);
                dot += b * widen(y[at + i]);
                narrow(w * b, dy[at + i]);
            }
            dweight[n * k + j] = dot;
        }
    }
}

// out[n] = sum_k x[slot[n][k]]: the gradient of giving each token's row to its experts
template <class T> void gather_sum(const T* x, const int64_t* slot, T* out, int64_t rows, int64_t k, int64_t cols) {
    std::vector<float> ones((size_t)rows * k, 1.0f);
    combine(x, slot, ones.data(), out, rows, k, cols);
}
}  // namespace

#define DISPATCH(CALL_BF16, CALL_FLOAT) if (is_bf16) CALL_BF16; else CALL_FLOAT
extern "C" void tenth_rms_forward(int is_bf16, const void* x, const float* w, void* y, float* inv, int64_t rows, int64_t cols,
                                  int64_t stride, float eps) {
    DISPATCH(rms_forward((const bf16*)x, w, (bf16*)y, inv, rows, cols, stride, eps),
             rms_forward((const float*)x, w, (float*)y, inv, rows, cols, stride, eps));
}
extern "C" void tenth_rms_backward(int is_bf16, const void* x, const float* w, const float* inv, const void* g, void* dx, float* dw,
                                   int64_t rows, int64_t cols, int64_t stride, int threads) {
    DISPATCH(rms_backward((const bf16*)x, w, inv, (const bf16*)g, (bf16*)dx, dw, rows, cols, stride, threads),
             rms_backward((const float*)x, w, inv, (const float*)g, (float*)dx, dw, rows, cols, stride, threads));
}
extern "C" void tenth_swiglu_forward(int is_bf16, const void* x, void* y, int64_t rows, int64_t cols) {
    DISPATCH(swiglu_forward((const bf16*)x, (bf16*)y, rows, cols), swiglu_forward((const float*)x, (float*)y, rows, cols));
}
extern "C" void tenth_swiglu_backward(int is_bf16, const void* x, const void* g, void* dx, int64_t rows, int64_t cols) {
    DISPATCH(swiglu_backward((const bf16*)x, (const bf16*)g, (bf16*)dx, rows, cols),
             swiglu_backward((const float*)x, (const float*)g, (float*)dx, rows, cols));
}
extern "C" void tenth_cross_entropy(int is_bf16, void* logits, const int64_t* target, const float* weight, float* loss, int64_t rows,
                                    int64_t cols) {
    DISPATCH(cross_entropy((bf16*)logits, target, weight, loss, rows, cols),
             cross_entropy((float*)logits, target, weight, loss, rows, cols));
}
extern "C" void tenth_combine(int is_bf16, const void* y, const int64_t* slot, const float* w, void* out, int64_t rows, int64_t k,
                              int64_t cols) {
    DISPATCH(combine((const bf16*)y, slot, w, (bf16*)out, rows, k, cols), combine((const float*)y, slot, w, (float*)out, rows, k, cols));
}
extern "C" void tenth_combine_backward(int is_bf16, const void* y, const int64_t* slot, const float* w, const void* g, void* dy,
                                       float* dw, int64_t rows, int64_t k, int64_t cols) {
    DISPATCH(combine_backward((const bf16*)y, slot, w, (const bf16*)g, (bf16*)dy, dw, rows, k, cols),
             combine_backward((const float*)y, slot, w, (const float*)g, (float*)dy, dw, rows, k, cols));
}
extern "C" void tenth_gather_sum(int is_bf16, const void* x, const int64_t* slot, void* out, int64_t rows, int64_t k, int64_t cols) {
    DISPATCH(gather_sum((const bf16*)x, slot, (bf16*)out, rows, k, cols), gather_sum((const float*)x, slot, (float*)out, rows, k, cols));
}
