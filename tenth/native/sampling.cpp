// Draw one token per row: temperature, nucleus, one uniform number per row; and its log-probability at temperature 1.
#include "common.h"
#include <numeric>

namespace {
template <class T>
void sample(const T* logits, const float* uniform, int64_t rows, int64_t cols, float temperature, float top_p, int64_t* out,
            float* logprob) {
#pragma omp parallel
    {
        std::vector<float> x(cols), p(cols);
        std::vector<int64_t> order;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; ++r) {
            const T* in = logits + r * cols;
            float top = -INFINITY, plain = 0, total = 0;
            for (int64_t i = 0; i < cols; ++i) { x[i] = widen(in[i]); top = std::max(top, x[i]); }
#pragma omp simd reduction(+ : plain)
            for (int64_t i = 0; i < cols; ++i) plain += fast_exp(x[i] - top);
            int64_t chosen = 0;
            if (temperature <= 0) {
                chosen = std::max_element(x.begin(), x.end()) - x.begin();
            } else {
                float inverse = 1.0f / temperature;
#pragma omp simd reduction(+ : total)
                for (int64_t i = 0; i < cols; ++i) {
                    float z = (x[i] - top) * inverse;   // below -87 fast_exp stops short of zero, but such
                    p[i] = z < -87.0f ? 0.0f : fast_exp(z);     // a token, a masked one above all, is never drawn
                    total += p[i];
                }
                float mass = total;
                if (top_p < 1) {            // keep the fewest most likely tokens whose mass reaches top_p
                    order.resize(cols);
                    std::iota(order.begin(), order.end(), 0);
                    int64_t kept = 0, sorted = 0;
                    mass = 0;
                    while (mass < top_p * total && kept < cols) {
                        if (kept == sorted) {
                            sorted = std::min<int64_t>(cols, sorted * 2 + 16);
                            std::partial_sort(order.begin(), order.begin() + sorted, order.end(), [&](int64_t a, int64_t b) {
                                return p[a] > p[b] || (p[a] == p[b] && a < b);
                            });
                        }
                        mass += p[order[kept++]];
                    }
                    for (int64_t j = kept; j < cols; ++j) p[order[j]] = 0;
                }
                float left = uniform[r] * mass;
                int64_t last = 0;
                chosen = -1;
                for (int64_t i = 0; i < cols && chosen < 0; ++i) {
                    if (p[i] <= 0) continue;
                    last = i;
                    left -= p[i];
                    if (left < 0) chosen = i;
                }
                if (chosen < 0) chosen = last;  // rounding left a crumb of mass behind the last token
            }
            out[r] = chosen;
            logprob[r] = x[chosen] - top - std::log(plain);
        }
    }
}
}  // namespace

extern "C" void tenth_sample(int is_bf16, const void* logits, const float* uniform, int64_t rows, int64_t cols, float temperature,
                             float top_p, int64_t* out, float* logprob) {
    if (is_bf16) sample((const bf16*)logits, uniform, rows, cols, temperature, top_p, out, logprob);
    else sample((const float*)logits, uniform, rows, cols, temperature, top_p, out, logprob);
}
