// Causal attention, forward and backward, for training on a CPU. float32 inside, float32 or bfloat16 outside.
// One kernel serves MLA and grouped-query attention: a key is [plain part, per kv head; rotary part, per kv head or
// shared by all], and the rotation is applied here, while rows are widened into scratch, so nothing is concatenated,
// transposed or expanded in memory. Query t sees keys starts[b][t] .. t (packed documents, padding on either side).
// The twin is torch's scaled_dot_product_attention (model/attention_core.py); tests compare the two.
#include "common.h"

namespace {
constexpr int ROWS = 32;                       // queries handled together

struct View { void* data; int64_t batch, time, head; };   // strides in elements; the last dimension is dense

struct Shape {
    int64_t batch, time, heads, kv_heads, nope, rope, value, rope_kv_heads;   // rope_kv_heads: kv_heads or 1
    float scale;
};

int round_up(int64_t n, int m) { return int((n + m - 1) / m * m); }

template <class T> T* at(const View& v, int64_t b, int64_t t, int64_t h) {
    return (T*)v.data + b * v.batch + t * v.time + h * v.head;
}

// Rotate the two halves of a row by the angle of its position; sign -1 undoes it (the backward pass).
template <class T>
void rotate_in(const T* x, const float* cos, const float* sin, int half, float* out) {
    for (int i = 0; i < half; ++i) {
        float a = widen(x[i]), b = widen(x[i + half]);
        out[i] = a * cos[i] - b * sin[i];
        out[i + half] = b * cos[i] + a * sin[i];
    }
}
template <class T>
void rotate_back(const float* g, const float* cos, const float* sin, int half, T* out, bool add) {
    for (int i = 0; i < half; ++i) {
        float a = g[i] * cos[i] + g[i + half] * sin[i];
        float b = g[i + half] * cos[i] - g[i] * sin[i];
        if (add) { a += widen(out[i]); b += widen(out[i + half]); }
        narrow(a, out[i]);
        narrow(b, out[i + half]);
    }
}

void transpose(const float* in, int rows, int cols, float* out, int ldo) {   // out[c][r] = in[r][c]
    for (int r0 = 0; r0 < rows; r0 += 16)
        for (int c = 0; c < cols; ++c)
            for (int r = r0; r < std::min(r0 + 16, rows); ++r) out[(int64_t)c * ldo + r] = in[(int64_t)r * cols + c];
}

template <class T> struct Problem {
    Shape s;
    View q, k, kr, v, o;
    const float *cos, *sin;                     // (B or 1, T, rope / 2)
    int64_t table_batch;                        // stride of a batch in the tables; 0 when shared
    const int32_t* starts;                      // (B, T) or null
    float* lse;                                 // (B, H, T)

    int dq() const { return int(s.nope + s.rope); }
    const float* row(const float* table, int64_t b, int64_t t) const {
        return table + b * table_batch + t * (s.rope / 2);
    }
    void load_q(int64_t b, int64_t t, int64_t h, float* out) const {
        const T* x = at<T>(q, b, t, h);
        for (int i = 0; i < s.nope; ++i) out[i] = widen(x[i]) * s.scale;
        rotate_in(x + s.nope, row(cos, b, t), row(sin, b, t), int(s.rope / 2), out + s.nope);
        for (int i = int(s.nope); i < dq(); ++i) out[i] *= s.scale;
    }
    void load_k(int64_t b, int64_t t, int64_t g, float* out) const {
        const T* x = at<T>(k, b, t, g);
        for (int i = 0; i < s.nope; ++i) out[i] = widen(x[i]);
        const T* r = at<T>(kr, b, t, s.rope_kv_heads == 1 ? 0 : g);
        rotate_in(r, row(cos, b, t), row(sin, b, t), int(s.rope / 2), out + s.nope);
    }
    int first_key(int64_t b, int64_t t) const { return starts ? starts[b * s.time + t] : 0; }
};

// Scores of ROWS queries against keys [from, to): exp(score - shift), zero where masked.
template <class T>
void mask_row(const Problem<T>& p, int64_t b, int64_t t, float* row, int from, int to) {
    int first = std::max(p.first_key(b, t), from);
    for (int j = from; j < first; ++j) row[j] = -INFINITY;
    for (int j = int(t) + 1; j < to; ++j) row[j] = -INFINITY;
}

template <class T> void forward_head(const Problem<T>& p, int64_t b, int64_t h, const float* kt, const float* v, int tp,
                                     float* scores, float* q, float* out) {
    const Shape& s = p.s;
    int dq = p.dq(), dv = int(s.value);
    for (int64_t t0 = 0; t0 < s.time; t0 += ROWS) {
        int rows = int(std::min<int64_t>(ROWS, s.time - t0)), to = std::min(round_up(t0 + rows, 32), tp);
        int from = p.first_key(b, t0) / 32 * 32;
        for (int r = 1; r < rows; ++r) from = std::min(from, p.first_key(b, t0 + r) / 32 * 32);
        std::fill(q, q + ROWS * dq, 0.0f);
        for (int r = 0; r < rows; ++r) p.load_q(b, t0 + r, h, q + r * dq);
        int m = round_up(rows, 8);
        small_gemm(m, to - from, dq, q, dq, 1, kt + from, tp, scores + from, tp, false);
        float inverse[ROWS];
        for (int r = 0; r < m; ++r) {
            float* row = scores + (int64_t)r * tp;
            if (r >= rows) { std::fill(row + from, row + to, 0.0f); continue; }
            mask_row(p, b, t0 + r, row, from, to);
            float top = -INFINITY, sum = 0;
            for (int j = from; j < to; ++j) top = std::max(top, row[j]);
            for (int j = from; j < to; ++j) {
                float e = row[j] == -INFINITY ? 0.0f : fast_exp(row[j] - top);
                row[j] = e;
                sum += e;
            }
            inverse[r] = 1.0f / sum;
            p.lse[(b * s.heads + h) * s.time + t0 + r] = top + std::log(sum);
        }
        small_gemm(m, dv, to - from, scores + from, tp, 1, v + (int64_t)from * dv, dv, out, dv, false);
        for (int r = 0; r < rows; ++r) {
            T* o = at<T>(p.o, b, t0 + r, h);
            for (int i = 0; i < dv; ++i) narrow(out[r * dv + i] * inverse[r], o[i]);
        }
    }
}

template <class T> void load_keys(const Problem<T>& p, int64_t b, int64_t g, float* k, float* v) {
    for (int64_t t = 0; t < p.s.time; ++t) {
        p.load_k(b, t, g, k + t * p.dq());
        const T* x = at<T>(p.v, b, t, g);
        for (int i = 0; i < p.s.value; ++i) v[t * p.s.value + i] = widen(x[i]);
    }
}

template <class T> void forward(const Problem<T>& p) {
    const Shape& s = p.s;
    int dq = p.dq(), dv = int(s.value), tp = round_up(s.time, 32);
    int64_t group = s.heads / s.kv_heads;
#pragma omp parallel
    {
        std::vector<float> k((size_t)tp * dq), kt((size_t)tp * dq), v((size_t)tp * dv), scores((size_t)ROWS * tp), q(ROWS * dq),
            out(ROWS * dv);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < s.batch * s.kv_heads; ++task) {
            int64_t b = task / s.kv_heads, g = task % s.kv_heads;
            load_keys(p, b, g, k.data(), v.data());
            transpose(k.data(), tp, dq, kt.data(), tp);
            for (int64_t h = g * group; h < (g + 1) * group; ++h)
                forward_head(p, b, h, kt.data(), v.data(), tp, scores.data(), q.data(), out.data());
        }
    }
}

template <class T> struct Scratch {
    std::vector<float> k, kt, v, vt, p, ds, q, dout, dq, dk, dv;
    Scratch(int tp, int dq_, int dv_)
        : k((size_t)tp * dq_), kt((size_t)tp * dq_), v((size_t)tp * dv_), vt((size_t)tp * dv_), p((size_t)ROWS * tp),
          ds((size_t)ROWS * tp), q(ROWS * dq_), dout(ROWS * dv_), dq(ROWS * dq_), dk((size_t)tp * dq_), dv((size_t)tp * dv_) {}
};

template <class T>
void backward_head(const Problem<T>& p, const View& grad_o, const View& grad_q, int64_t b, int64_t h, int tp, Scratch<T>& w) {
    const Shape& s = p.s;
    int dq = p.dq(), dv = int(s.value);
    for (int64_t t0 = 0; t0 < s.time; t0 += ROWS) {
        int rows = int(std::min<int64_t>(ROWS, s.time - t0)), to = std::min(round_up(t0 + rows, 32), tp);
        int m = round_up(rows, 8), from = p.first_key(b, t0) / 32 * 32;
        for (int r = 1; r < rows; ++r) from = std::min(from, p.first_key(b, t0 + r) / 32 * 32);
        std::fill(w.q.begin(), w.q.end(), 0.0f);
        std::fill(w.dout.begin(), w.dout.end(), 0.0f);
        float dot[ROWS] = {};
        for (int r = 0; r < rows; ++r) {
            p.load_q(b, t0 + r, h, w.q.data() + r * dq);
            const T *g = at<T>(grad_o, b, t0 + r, h), *o = at<T>(p.o, b, t0 + r, h);
            float sum = 0;
            for (int i = 0; i < dv; ++i) {
                w.dout[r * dv + i] = widen(g[i]);
                sum += widen(g[i]) * widen(o[i]);
            }
            dot[r] = sum;
        }
        small_gemm(m, to - from, dq, w.q.data(), dq, 1, w.kt.data() + from, tp, w.p.data() + from, tp, false);
        small_gemm(m, to - from, dv, w.dout.data(), dv, 1, w.vt.data() + from, tp, w.ds.data() + from, tp, false);
        for (int r = 0; r < m; ++r) {
            float *prob = w.p.data() + (int64_t)r * tp, *ds = w.ds.data() + (int64_t)r * tp;
            if (r >= rows) {
                std::fill(prob + from, prob + to, 0.0f);
                std::fill(ds + from, ds + to, 0.0f);
                continue;
            }
            mask_row(p, b, t0 + r, prob, from, to);
            float lse = p.lse[(b * s.heads + h) * s.time + t0 + r], d = dot[r];
            for (int j = from; j < to; ++j) {
                float e = prob[j] == -INFINITY ? 0.0f : fast_exp(prob[j] - lse);
                prob[j] = e;
                ds[j] = e * (ds[j] - d);
            }
        }
        small_gemm(m, dq, to - from, w.ds.data() + from, tp, 1, w.k.data() + (int64_t)from * dq, dq, w.dq.data(), dq, false);
        small_gemm(to - from, dq, m, w.ds.data() + from, 1, tp, w.q.data(), dq, w.dk.data() + (int64_t)from * dq, dq, true);
        small_gemm(to - from, dv, m, w.p.data() + from, 1, tp, w.dout.data(), dv, w.dv.data() + (int64_t)from * dv, dv, true);
        for (int r = 0; r < rows; ++r) {
            T* g = at<T>(grad_q, b, t0 + r, h);
            float* x = w.dq.data() + r * dq;
            for (int i = 0; i < dq; ++i) x[i] *= s.scale;
            for (int i = 0; i < s.nope; ++i) narrow(x[i], g[i]);
            rotate_back(x + s.nope, p.row(p.cos, b, t0 + r), p.row(p.sin, b, t0 + r), int(s.rope / 2), g + s.nope, false);
        }
    }
}

template <class T>
void backward(const Problem<T>& p, const View& go, const View& gq, const View& gk, const View& gkr, const View& gv) {
    const Shape& s = p.s;
    int dq = p.dq(), dv = int(s.value), tp = round_up(s.time, 32);
    int64_t group = s.heads / s.kv_heads;
    bool shared = s.rope_kv_heads == 1;         // then one task owns a whole batch row: no two write one gradient
    int64_t tasks = shared ? s.batch : s.batch * s.kv_heads;
#pragma omp parallel
    {
        Scratch<T> w(tp, dq, dv);
        std::vector<float> rope_grad(shared ? (size_t)s.time * s.rope : 0);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; ++task) {
            int64_t b = shared ? task : task / s.kv_heads, g0 = shared ? 0 : task % s.kv_heads;
            std::fill(rope_grad.begin(), rope_grad.end(), 0.0f);
            for (int64_t g = g0; g < (shared ? s.kv_heads : g0 + 1); ++g) {
                load_keys(p, b, g, w.k.data(), w.v.data());
                transpose(w.k.data(), tp, dq, w.kt.data(), tp);
                transpose(w.v.data(), tp, dv, w.vt.data(), tp);
                std::fill(w.dk.begin(), w.dk.end(), 0.0f);
                std::fill(w.dv.begin(), w.dv.end(), 0.0f);
                for (int64_t h = g * group; h < (g + 1) * group; ++h) backward_head(p, go, gq, b, h, tp, w);
                for (int64_t t = 0; t < s.time; ++t) {
                    const float* x = w.dk.data() + t * dq;
                    T* k = at<T>(gk, b, t, g);
                    for (int i = 0; i < s.nope; ++i) narrow(x[i], k[i]);
                    if (shared)
                        for (int i = 0; i < s.rope; ++i) rope_grad[t * s.rope + i] += x[s.nope + i];
                    else
                        rotate_back(x + s.nope, p.row(p.cos, b, t), p.row(p.sin, b, t), int(s.rope / 2), at<T>(gkr, b, t, g), false);
                    T* v = at<T>(gv, b, t, g);
                    for (int i = 0; i < dv; ++i) narrow(w.dv[t * dv + i], v[i]);
                }
            }
            if (shared)
                for (int64_t t = 0; t < s.time; ++t)
                    rotate_back(rope_grad.data() + t * s.rope, p.row(p.cos, b, t), p.row(p.sin, b, t), int(s.rope / 2),
                                at<T>(gkr, b, t, 0), false);
        }
    }
}

template <class T> Problem<T> problem(const Shape* s, const View* views, const float* cos, const float* sin, int64_t table_batch,
                                      const int32_t* starts, float* lse) {
    return Problem<T>{*s, views[0], views[1], views[2], views[3], views[4], cos, sin, table_batch, starts, lse};
}
}  // namespace

// views: q, k (plain part), kr (rotary part), v, o
extern "C" void tenth_attention_forward(int is_bf16, const Shape* s, const View* views, const float* cos, const float* sin,
                                        int64_t table_batch, const int32_t* starts, float* lse) {
    if (is_bf16) forward(problem<bf16>(s, views, cos, sin, table_batch, starts, lse));
    else forward(problem<float>(s, views, cos, sin, table_batch, starts, lse));
}

// grads: o (given), q, k, kr, v (written)
extern "C" void tenth_attention_backward(int is_bf16, const Shape* s, const View* views, const float* cos, const float* sin,
                                         int64_t table_batch, const int32_t* starts, float* lse, const View* g) {
    if (is_bf16) backward(problem<bf16>(s, views, cos, sin, table_batch, starts, lse), g[0], g[1], g[2], g[3], g[4]);
    else backward(problem<float>(s, views, cos, sin, table_batch, starts, lse), g[0], g[1], g[2], g[3], g[4]);
}
