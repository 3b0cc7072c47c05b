// Causal attention, forward and backward, for training on a CPU. float32 inputs are computed in float32; bfloat16 inputs
// multiply in bfloat16 with float32 sums and softmax, where the processor can.
// One kernel serves MLA and grouped-query attention: a key is [plain part, per kv head; rotary part, per kv head or
// shared by all], and the rotation is applied here, while rows are copied into scratch, so nothing is concatenated,
// transposed or expanded in memory. Query t sees keys starts[b][t] .. t (packed documents, padding on either side).
// The twin is torch's scaled_dot_product_attention (model/attention_core.py); tests compare the two.
#include "common.h"

namespace {
constexpr int ROWS = 32;                       // queries handled together
constexpr int KEYS = 64;                       // keys handled together in the backward pass: all stays in the first cache

struct View { void* data; int64_t batch, time, head; };   // strides in elements; the last dimension is dense

struct Shape {
    int64_t batch, time, heads, kv_heads, nope, rope, value, rope_kv_heads;   // rope_kv_heads: kv_heads or 1
    float scale;
};

int round_up(int64_t n, int m) { return int((n + m - 1) / m * m); }

template <class T> T* at(const View& v, int64_t b, int64_t t, int64_t h) {
    return (T*)v.data + b * v.batch + t * v.time + h * v.head;
}

template <class From, class To> void copy_row(const From* x, int n, To* out) {
    map_row(n, [](auto a) { return a; }, out, x);
}
inline void copy_row(const bf16* x, int n, bf16* out) { std::memcpy(out, x, size_t(n) * sizeof(bf16)); }

// Rotate the two halves of a row by the angle of its position; `rotate_back` undoes it (the backward pass).
template <class From, class To> void rotate(const From* x, const float* cos, const float* sin, int half, To* out) {
    map_row(half, [](auto a, auto b, auto c, auto s) { return a * c - b * s; }, out, x, x + half, cos, sin);
    map_row(half, [](auto a, auto b, auto c, auto s) { return b * c + a * s; }, out + half, x, x + half, cos, sin);
}
template <class T> void rotate_back(const float* g, const float* cos, const float* sin, int half, T* out) {
    map_row(half, [](auto a, auto b, auto c, auto s) { return a * c + b * s; }, out, g, g + half, cos, sin);
    map_row(half, [](auto a, auto b, auto c, auto s) { return b * c - a * s; }, out + half, g, g + half, cos, sin);
}

// A matrix of cells, row by row; `words` reads it as a left operand.
template <class P> struct Matrix {
    typedef typename P::Cell Cell;
    std::vector<float> memory;
    int cols;
    Matrix(int rows, int cols_) : memory((size_t)rows * cols_ / P::PER_WORD), cols(cols_) {}
    Cell* row(int r) { return (Cell*)memory.data() + (size_t)r * cols; }
    float* words() { return memory.data(); }
    int stride() const { return cols / P::PER_WORD; }
};

// Right operand [cols / PER_WORD][rows] with the columns of `in` as inner dimension: a transpose of words.
template <class P> void columns_inside(Matrix<P>& in, int rows, float* out) {
    int words = in.stride();
    for (int r0 = 0; r0 < rows; r0 += 16)
        for (int c = 0; c < words; ++c)
            for (int r = r0; r < std::min(r0 + 16, rows); ++r) out[(size_t)c * rows + r] = in.words()[(size_t)r * words + c];
}

// Right (or turned left) operand [rows / PER_WORD][cols] with the rows of `in` as inner dimension: interleave two rows.
inline void rows_inside(Matrix<Wide>& in, int rows, int cols, float* out, int64_t ld) {
    for (int r = 0; r < rows; ++r) std::memcpy(out + r * ld, in.row(r), cols * sizeof(float));
}
#ifdef __AVX512BF16__
inline void rows_inside(Matrix<Paired>& in, int rows, int cols, float* out, int64_t ld) {
    for (int r = 0; r < rows; r += 2) {
        const bf16 *low = in.row(r), *high = in.row(r + 1);
        uint32_t* words = (uint32_t*)(out + r / 2 * ld);
#pragma omp simd
        for (int i = 0; i < cols; ++i) words[i] = low[i].bits | uint32_t(high[i].bits) << 16;
    }
}
#endif

template <class T> struct Problem {
    Shape s;
    View q, k, kr, v, o;
    const float *cos, *sin;                     // (B or 1, T, rope / 2)
    int64_t table_batch;                        // stride of a batch in the tables; 0 when shared
    const int32_t* starts;                      // (B, T) or null
    float* lse;                                 // (B, H, T)

    int key_width() const { return int(s.nope + s.rope); }
    int value_width() const { return int(s.value); }
    const float* angles(const float* table, int64_t b, int64_t t) const { return table + b * table_batch + t * (s.rope / 2); }
    template <class Cell> void load_row(const T* plain, const T* rotary, int64_t b, int64_t t, Cell* out) const {
        copy_row(plain, int(s.nope), out);
        rotate(rotary, angles(cos, b, t), angles(sin, b, t), int(s.rope / 2), out + s.nope);
    }
    template <class Cell> void load_query(int64_t b, int64_t t, int64_t h, Cell* out) const {
        const T* x = at<T>(q, b, t, h);
        load_row(x, x + s.nope, b, t, out);
    }
    template <class Cell> void load_key(int64_t b, int64_t t, int64_t g, Cell* out) const {
        load_row(at<T>(k, b, t, g), at<T>(kr, b, t, s.rope_kv_heads == 1 ? 0 : g), b, t, out);
    }
    int first_key(int64_t b, int64_t t) const { return starts ? starts[b * s.time + t] : 0; }
};

// The keys that a block of queries looks at, in multiples of 32.
struct Span { int64_t t0; int rows, padded_rows, from, to; };

template <class T> Span span_of(const Problem<T>& p, int64_t b, int64_t t0) {
    int rows = int(std::min<int64_t>(ROWS, p.s.time - t0)), first = p.first_key(b, t0);
    for (int r = 1; r < rows; ++r) first = std::min(first, p.first_key(b, t0 + r));
    return {t0, rows, round_up(rows, 8), first / 32 * 32, round_up(t0 + rows, 32)};
}

// Scores of query t against keys [from, to) that it may not see become -infinity.
template <class T> void mask_row(const Problem<T>& p, int64_t b, int64_t t, float* row, int from, int to) {
    for (int j = from, end = std::min(p.first_key(b, t), to); j < end; ++j) row[j - from] = -INFINITY;
    for (int j = std::max(int(t) + 1, from); j < to; ++j) row[j - from] = -INFINITY;
}

inline vec16 masked_exp(vec16 score, vec16 power) { return score == -INFINITY ? vec16{} : fast_exp(power); }

// One row: out = exp(scale * (score - best)), exactly 1 for the best, masked entries 0; returns the sum, scale * best in `top`.
template <class P> float softmax_row(const float* score, int n, float scale, float& top, typename P::Cell* out) {
    const float best = row_max(score, n);
    top = best * scale;
    vec16 sum = {};
    for (int j = 0; j < n; j += 16) {
        vec16 x = load16(score + j), e = masked_exp(x, (x - best) * scale);
        sum += e;
        store16(e, out + j);
    }
    return sum16(sum);
}

// Keys and values of one (batch, kv head) in the forms that products want; rows past the end stay zero.
template <class P> struct Keys {
    Matrix<P> k, v;
    std::vector<float> k_columns, v_columns, k_rows, v_rows;   // right operands; `_columns`: the width is inside
    int padded, kw, vw;
    Keys(int padded_, int kw_, int vw_, bool backward)
        : k(padded_, kw_), v(padded_, vw_), k_columns((size_t)padded_ * kw_ / P::PER_WORD),
          v_columns(backward ? (size_t)padded_ * vw_ / P::PER_WORD : 0),
          k_rows(backward ? (size_t)padded_ * kw_ / P::PER_WORD : 0), v_rows(backward ? 0 : (size_t)padded_ * vw_ / P::PER_WORD),
          padded(padded_), kw(kw_), vw(vw_) {}
    template <class T> void load(const Problem<T>& p, int64_t b, int64_t g) {
        for (int64_t t = 0; t < p.s.time; ++t) {
            p.load_key(b, t, g, k.row(int(t)));
            copy_row(at<T>(p.v, b, t, g), vw, v.row(int(t)));
        }
        columns_inside(k, padded, k_columns.data());
        if (v_columns.size()) columns_inside(v, padded, v_columns.data());
        if (k_rows.size()) rows_inside(k, padded, kw, k_rows.data(), kw);
        if (v_rows.size()) rows_inside(v, padded, vw, v_rows.data(), vw);
    }
};

template <class P> struct Forward {
    Keys<P> keys;
    Matrix<P> q, prob;
    std::vector<float> score, out;
    Forward(int padded, int kw, int vw)
        : keys(padded, kw, vw, false), q(ROWS, kw), prob(ROWS, padded), score((size_t)ROWS * padded), out(ROWS * vw) {}

    template <class T> void head(const Problem<T>& p, int64_t b, int64_t h) {
        for (int64_t t0 = 0; t0 < p.s.time; t0 += ROWS) block(p, b, h, span_of(p, b, t0));
    }

    template <class T> void block(const Problem<T>& p, int64_t b, int64_t h, Span at_keys) {
        const auto [t0, rows, m, from, to] = at_keys;
        int vw = keys.vw, padded = keys.padded, n = to - from;
        for (int r = 0; r < rows; ++r) p.load_query(b, t0 + r, h, q.row(r));
        small_gemm<P>(m, n, q.stride(), q.words(), q.stride(), 1, keys.k_columns.data() + from, padded, score.data(), padded, false);
        float inverse[ROWS];
        for (int r = 0; r < rows; ++r) {
            float *row = score.data() + (size_t)r * padded, top;
            mask_row(p, b, t0 + r, row, from, to);
            float sum = softmax_row<P>(row, n, p.s.scale, top, prob.row(r));
            inverse[r] = 1.0f / sum;
            p.lse[(b * p.s.heads + h) * p.s.time + t0 + r] = top + std::log(sum);
        }
        // Rows past the last query hold an older block's numbers, finite and never read out.
        small_gemm<P>(m, vw, n / P::PER_WORD, prob.words(), prob.stride(), 1, keys.v_rows.data() + (size_t)from / P::PER_WORD * vw,
                      vw, out.data(), vw, false);
        for (int r = 0; r < rows; ++r) {
            T* o = at<T>(p.o, b, t0 + r, h);
            map_row(vw, [scale = inverse[r]](auto x) { return x * scale; }, o, out.data() + r * vw);
        }
    }
};

template <class P, class T> void forward(const Problem<T>& p) {
    const Shape& s = p.s;
    int64_t group = s.heads / s.kv_heads;
#pragma omp parallel
    {
        Forward<P> w(round_up(s.time, 32), p.key_width(), p.value_width());
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < s.batch * s.kv_heads; ++task) {
            int64_t b = task / s.kv_heads, g = task % s.kv_heads;
            w.keys.load(p, b, g);
            for (int64_t h = g * group; h < (g + 1) * group; ++h) w.head(p, b, h);
        }
    }
}

template <class P> struct Backward {
    Keys<P> keys;
    Matrix<P> q, dout, prob, ds;                                 // ROWS rows each; prob and ds KEYS wide
    std::vector<float> q_rows, dout_rows, prob_rows, ds_rows;    // the same with the rows inside
    std::vector<float> score, dprob, dq, dk, dv;                 // float32
    Backward(int padded, int kw, int vw)
        : keys(padded, kw, vw, true), q(ROWS, kw), dout(ROWS, vw), prob(ROWS, KEYS), ds(ROWS, KEYS),
          q_rows(ROWS * kw / P::PER_WORD), dout_rows(ROWS * vw / P::PER_WORD), prob_rows(ROWS * KEYS / P::PER_WORD),
          ds_rows(ROWS * KEYS / P::PER_WORD), score(ROWS * KEYS), dprob(ROWS * KEYS), dq(ROWS * kw), dk((size_t)padded * kw),
          dv((size_t)padded * vw) {}

    // Products with `rows inside` sum over all ROWS: rows past the last query must be zero there.
    void clear() {
        for (auto* x : {&q.memory, &dout.memory, &prob.memory, &ds.memory}) std::fill(x->begin(), x->end(), 0.0f);
    }

    template <class T> void head(const Problem<T>& p, const View& grad_o, const View& grad_q, int64_t b, int64_t h) {
        for (int64_t t0 = 0; t0 < p.s.time; t0 += ROWS) {
            Span span = span_of(p, b, t0);
            if (span.rows < ROWS) clear();
            block(p, grad_o, b, h, span);
            for (int r = 0; r < span.rows; ++r) {
                T* g = at<T>(grad_q, b, t0 + r, h);
                const float* x = dq.data() + r * keys.kw;
                copy_row(x, int(p.s.nope), g);
                rotate_back(x + p.s.nope, p.angles(p.cos, b, t0 + r), p.angles(p.sin, b, t0 + r), int(p.s.rope / 2), g + p.s.nope);
            }
        }
    }

    template <class T> void block(const Problem<T>& p, const View& grad_o, int64_t b, int64_t h, const Span& span) {
        int kw = keys.kw, vw = keys.vw;
        float dot[ROWS];                                         // sum_i dO O = sum_j P dP of each query
        for (int r = 0; r < span.rows; ++r) {
            const T *g = at<T>(grad_o, b, span.t0 + r, h), *o = at<T>(p.o, b, span.t0 + r, h);
            p.load_query(b, span.t0 + r, h, q.row(r));
            copy_row(g, vw, dout.row(r));
            dot[r] = sum_row(vw, [](auto a, auto b) { return a * b; }, g, o);
        }
        rows_inside(q, ROWS, kw, q_rows.data(), kw);
        rows_inside(dout, ROWS, vw, dout_rows.data(), vw);
        std::fill(dq.begin(), dq.end(), 0.0f);
        const float* lse = p.lse + (b * p.s.heads + h) * p.s.time + span.t0;
        for (int from = span.from; from < span.to; from += KEYS) {
            int n = std::min(KEYS, span.to - from);
            small_gemm<P>(span.padded_rows, n, q.stride(), q.words(), q.stride(), 1, keys.k_columns.data() + from, keys.padded,
                          score.data(), KEYS, false);
            small_gemm<P>(span.padded_rows, n, dout.stride(), dout.words(), dout.stride(), 1, keys.v_columns.data() + from,
                          keys.padded, dprob.data(), KEYS, false);
            for (int r = 0; r < span.rows; ++r) {
                mask_row(p, b, span.t0 + r, score.data() + r * KEYS, from, from + n);
                score_gradient(r, n, p.s.scale, lse[r], dot[r]);
            }
            rows_inside(prob, ROWS, n, prob_rows.data(), KEYS);
            rows_inside(ds, ROWS, n, ds_rows.data(), KEYS);
            int inner = ROWS / P::PER_WORD;
            small_gemm<P>(span.padded_rows, kw, n / P::PER_WORD, ds.words(), ds.stride(), 1,
                          keys.k_rows.data() + (size_t)from / P::PER_WORD * kw, kw, dq.data(), kw, true);
            small_gemm<P>(n, kw, inner, ds_rows.data(), 1, KEYS, q_rows.data(), kw, dk.data() + (size_t)from * kw, kw, true);
            small_gemm<P>(n, vw, inner, prob_rows.data(), 1, KEYS, dout_rows.data(), vw, dv.data() + (size_t)from * vw, vw, true);
        }
    }

    // P = exp(scale * score - lse), d score = scale * P * (dP - dot), one query against n keys
    void score_gradient(int r, int n, float scale, float lse, float dot) {
        const float *s = score.data() + r * KEYS, *d = dprob.data() + r * KEYS;
        for (int j = 0; j < n; j += 16) {
            vec16 x = load16(s + j), e = masked_exp(x, x * scale - lse);
            store16(e, prob.row(r) + j);
            store16(scale * e * (load16(d + j) - dot), ds.row(r) + j);
        }
    }
};

template <class P, class T>
void backward(const Problem<T>& p, const View& go, const View& gq, const View& gk, const View& gkr, const View& gv) {
    const Shape& s = p.s;
    int64_t group = s.heads / s.kv_heads;
    int kw = p.key_width(), vw = p.value_width(), half = int(s.rope / 2);
    bool shared = s.rope_kv_heads == 1;         // then one task owns a whole batch row: no two write one gradient
    int64_t tasks = shared ? s.batch : s.batch * s.kv_heads;
#pragma omp parallel
    {
        Backward<P> w(round_up(s.time, 32), kw, vw);
        std::vector<float> rope_grad(shared ? (size_t)s.time * s.rope : 0);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; ++task) {
            int64_t b = shared ? task : task / s.kv_heads, g0 = shared ? 0 : task % s.kv_heads;
            std::fill(rope_grad.begin(), rope_grad.end(), 0.0f);
            for (int64_t g = g0; g < (shared ? s.kv_heads : g0 + 1); ++g) {
                w.keys.load(p, b, g);
                std::fill(w.dk.begin(), w.dk.end(), 0.0f);
                std::fill(w.dv.begin(), w.dv.end(), 0.0f);
                for (int64_t h = g * group; h < (g + 1) * group; ++h) w.head(p, go, gq, b, h);
                for (int64_t t = 0; t < s.time; ++t) {
                    const float* x = w.dk.data() + t * kw;
                    copy_row(x, int(s.nope), at<T>(gk, b, t, g));
                    if (shared)
                        for (int i = 0; i < s.rope; ++i) rope_grad[t * s.rope + i] += x[s.nope + i];
                    else
                        rotate_back(x + s.nope, p.angles(p.cos, b, t), p.angles(p.sin, b, t), half, at<T>(gkr, b, t, g));
                    copy_row(w.dv.data() + t * vw, vw, at<T>(gv, b, t, g));
                }
            }
            if (shared)
                for (int64_t t = 0; t < s.time; ++t)
                    rotate_back(rope_grad.data() + t * s.rope, p.angles(p.cos, b, t), p.angles(p.sin, b, t), half,
                                at<T>(gkr, b, t, 0));
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
    if (is_bf16) forward<Paired>(problem<bf16>(s, views, cos, sin, table_batch, starts, lse));
    else forward<Wide>(problem<float>(s, views, cos, sin, table_batch, starts, lse));
}

// grads: o (given), q, k, kr, v (written)
extern "C" void tenth_attention_backward(int is_bf16, const Shape* s, const View* views, const float* cos, const float* sin,
                                         int64_t table_batch, const int32_t* starts, float* lse, const View* g) {
    if (is_bf16) backward<Paired>(problem<bf16>(s, views, cos, sin, table_batch, starts, lse), g[0], g[1], g[2], g[3], g[4]);
    else backward<Wide>(problem<float>(s, views, cos, sin, table_batch, starts, lse), g[0], g[1], g[2], g[3], g[4]);
}
