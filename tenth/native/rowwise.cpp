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
        float sum = sum_row(cols, [](auto a) { return a * a; }, in), inv = 1.0f / std::sqrt(sum / float(cols) + eps);
        inverse[r] = inv;
        map_row(cols, [inv](auto a, auto w) { return a * inv * w; }, y + r * cols, in, weight);
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
            float inv = inverse[r], dot = sum_row(cols, [](auto a, auto b, auto w) { return a * w * b; }, g, in, weight);
            float c = dot * inv * inv / float(cols);
            map_row(cols, [inv](auto d, auto a, auto b) { return d + b * a * inv; }, dw, dw, in, g);
            map_row(cols, [inv, c](auto a, auto b, auto w) { return inv * (b * w - a * c); }, dx + r * cols, in, g, weight);
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
        map_row(cols, [](auto a, auto b) { return a * b * reciprocal(1.0f + fast_exp(-a)); }, y + r * cols, gate, up);
    }
}

// d gate = g * up * s * (1 + gate * (1 - s)), d up = g * gate * s, with s = sigmoid(gate)
struct SwigluGradient {
    template <class V> static V sigmoid(V a) { return reciprocal(1.0f + fast_exp(-a)); }
    template <class V> static V gate(V g, V a, V u, V s) { return g * u * s * (1.0f + a * (1.0f - s)); }
};

template <class T> void swiglu_backward(const T* x, const T* grad, T* dx, int64_t rows, int64_t cols) {
    typedef SwigluGradient D;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        const T *gate = x + r * 2 * cols, *up = gate + cols, *g = grad + r * cols;
        T *dgate = dx + r * 2 * cols, *dup = dgate + cols;
        int64_t i = 0;
        for (; i + 16 <= cols; i += 16) {
            vec16 a = load16(gate + i), b = load16(g + i), s = D::sigmoid(a);
            store16(D::gate(b, a, load16(up + i), s), dgate + i);
            store16(b * a * s, dup + i);
        }
        for (; i < cols; ++i) {
            float a = widen(gate[i]), b = widen(g[i]), s = D::sigmoid(a);
            narrow(D::gate(b, a, widen(up[i]), s), dgate[i]);
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
        float top = row_max(x, cols), sum = sum_row(cols, [top](auto a) { return fast_exp(a - top); }, x);
        float chosen = widen(x[target[r]]), w = weight[r];
        loss[r] = w * (top + std::log(sum) - chosen);
        float scale = w / sum;
        map_row(cols, [scale, top](auto a) { return scale * fast_exp(a - top); }, x, x);
        narrow(w * (fast_exp(chosen - top) / sum - 1.0f), x[target[r]]);
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
