// Draw one token per row: temperature, min_p, top_k, top_p, one uniform number; and its log-probability at temperature 1.
// Without filters a row is read twice (maximum, exponentials) and sorted never; with them, only the ids whose score is
// near enough to the best to matter are looked at again. A row's result depends on that row alone: every sum is taken
// in an order that neither the number of rows nor of threads can change.
#include "common.h"
#include <cfloat>

namespace {
constexpr int64_t BLOCK = 256;          // exponentials are summed per block: the draw then walks through one block only
constexpr float NEVER = -87.0f;         // exp of less counts as zero, so a masked token is never drawn

struct Candidate { float score, weight; int32_t id; };
struct Scratch {
    std::vector<float> sums;            // weight of each block
    std::vector<Candidate> all, ranked; // in the vocabulary's order; in any order
};
struct Settings { float temperature, top_p; int32_t top_k; float min_p; };

static inline bool comes_before(const Candidate& a, const Candidate& b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// Bit i is set where a[i] >= b[i].
static inline unsigned at_least(vec16 a, vec16 b) {
#ifdef __AVX512F__
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#else
    unsigned bits = 0;
    for (int i = 0; i < 16; ++i) bits |= unsigned(a[i] >= b[i]) << i;
    return bits;
#endif
}

// The scores of one row, and how they become weights: exp((x - best) / temperature), so the best weighs 1.
template <class T> struct Row {
    const T* in;
    int64_t cols;
    float best, inverse;

    template <class X> X scaled(X x) const { return (x - best) * inverse; }
    template <class X> X weight(X x) const {
        X z = scaled(x);
        return z < NEVER ? X{} : fast_exp(z);
    }
    double sum(float* sums) const {     // NaN where a score is NaN or +inf, or all are -inf
        double total = 0;
        for (int64_t i = 0; i < cols; i += BLOCK)
            total += sums[i / BLOCK] = sum_row(std::min(BLOCK, cols - i), [&](auto x) { return weight(x); }, in + i);
        return total;
    }
    // f(id, score) for every id with scaled(score) >= cut, in order, until f says stop
    template <class F> void visit(float cut, F f) const {
        int64_t i = 0;
        for (; i + 16 <= cols; i += 16) {
            vec16 x = load16(in + i);
            for (unsigned bits = at_least(scaled(x), cut + vec16{}); bits; bits &= bits - 1) {
                int lane = __builtin_ctz(bits);
                if (f(i + lane, x[lane])) return;
            }
        }
        for (; i < cols; ++i)
            if (scaled(widen(in[i])) >= cut && f(i, widen(in[i]))) return;
    }
    int64_t first_best() const {
        int64_t found = 0;
        visit(0, [&](int64_t id, float) { found = id; return true; });
        return found;
    }
};

// The id where the running sum of the weights, in the vocabulary's order, passes uniform * total.
template <class T> int64_t draw(const Row<T>& row, const std::vector<float>& sums, double total, float uniform) {
    double left = uniform * total;
    int64_t block = 0, blocks = (row.cols + BLOCK - 1) / BLOCK;
    for (int64_t b = 0; b < blocks; ++b) {
        if (sums[b] <= 0) continue;
        block = b;                      // rounding may leave a crumb behind the last
        if (left < sums[b]) break;
        left -= sums[b];
    }
    float weights[BLOCK];
    int64_t start = block * BLOCK, count = std::min(BLOCK, row.cols - start), chosen = 0;
    map_row(count, [&](auto x) { return row.weight(x); }, weights, row.in + start);
    for (int64_t i = 0; i < count; ++i) {
        if (weights[i] <= 0) continue;
        chosen = i;
        left -= weights[i];
        if (left < 0) break;
    }
    return start + chosen;
}

double mass_of(const Candidate* from, const Candidate* to) {
    double mass = 0;
    for (; from < to; ++from) mass += from->weight;
    return mass;
}

// The last candidate of the shortest prefix, likeliest first, that weighs at least `target`. Reorders v. Halves the range
// that holds it, so the work is a few times v's length and nothing long is ever sorted.
Candidate last_of_mass(std::vector<Candidate>& v, double target) {
    Candidate *low = v.data(), *high = low + v.size();
    double above = 0;
    while (high - low > 32) {
        Candidate* middle = low + (high - low) / 2;
        std::nth_element(low, middle, high, comes_before);
        double mass = mass_of(low, middle);
        if (above + mass >= target) high = middle;
        else { above += mass; low = middle; }
    }
    std::sort(low, high, comes_before);
    while (low + 1 < high && above + low->weight < target) above += (low++)->weight;
    return *low;
}

// min_p first, then top_k, then top_p of what these left; of equal scores the lower ids stay.
template <class T>
int64_t draw_filtered(const Row<T>& row, const Settings& set, double total, float uniform, Scratch& s) {
    const float floor = set.min_p > 0 ? std::max(std::log(set.min_p), NEVER) : NEVER;
    const size_t wanted = set.top_k > 0 ? set.top_k : 0;
    double mass = 0;
    for (float cut : {-8.0f, -16.0f, NEVER}) {      // most nuclei lie within e^-8 of the best
        cut = std::max(cut, floor);
        s.all.clear();
        row.visit(cut, [&](int64_t id, float x) {
            s.all.push_back({x, row.weight(x), int32_t(id)});
            return false;
        });
        mass = mass_of(s.all.data(), s.all.data() + s.all.size());
        bool is_enough = wanted ? s.all.size() >= wanted : floor == NEVER && mass >= set.top_p * total;
        if (cut == floor || is_enough) break;
    }
    Candidate last{-INFINITY, 0, INT32_MAX};
    s.ranked = s.all;
    if (wanted && wanted < s.ranked.size()) {
        std::nth_element(s.ranked.begin(), s.ranked.begin() + (wanted - 1), s.ranked.end(), comes_before);
        last = s.ranked[wanted - 1];
        s.ranked.resize(wanted);
    }
    if (set.top_p < 1) {
        bool is_all = !wanted && floor == NEVER;    // then what lies below the cut counts too
        last = last_of_mass(s.ranked, set.top_p * (is_all ? total : mass_of(s.ranked.data(), s.ranked.data() + s.ranked.size())));
    }
    double kept = 0;
    for (const Candidate& c : s.all)
        if (!comes_before(last, c)) kept += c.weight;
    double left = uniform * kept;
    int64_t chosen = 0;
    for (const Candidate& c : s.all) {
        if (c.weight <= 0 || comes_before(last, c)) continue;
        chosen = c.id;
        left -= c.weight;
        if (left < 0) break;
    }
    return chosen;
}

template <class T>
int64_t sample_row(const T* in, int64_t cols, const Settings& set, float uniform, Scratch& s, float& logprob) {
    Row<T> row{in, cols, row_max(in, cols), 1.0f};
    double plain = row.sum(s.sums.data()), total = plain;
    if (!(plain > 0)) {
        logprob = NAN;
        return -1;
    }
    int64_t chosen;
    if (set.temperature <= 0) {
        chosen = row.first_best();
    } else {
        if (set.temperature != 1) {
            row.inverse = std::min(1.0f / set.temperature, FLT_MAX);
            total = row.sum(s.sums.data());
        }
        bool is_filtered = set.top_p < 1 || set.min_p > 0 || (set.top_k > 0 && set.top_k < cols);
        chosen = is_filtered ? draw_filtered(row, set, total, uniform, s) : draw(row, s.sums, total, uniform);
    }
    logprob = float(double(widen(in[chosen]) - row.best) - std::log(plain));
    return chosen;
}

template <class T>
void sample(const T* logits, const float* uniform, int64_t rows, int64_t cols, const float* temperature, const float* top_p,
            const int32_t* top_k, const float* min_p, int64_t* ids, float* logprobs) {
#pragma omp parallel if (rows > 1)
    {
        Scratch scratch;
        scratch.sums.resize((cols + BLOCK - 1) / BLOCK);
#pragma omp for schedule(guided)
        for (int64_t r = 0; r < rows; ++r)
            ids[r] = sample_row(logits + r * cols, cols, {temperature[r], top_p[r], top_k[r], min_p[r]}, uniform[r], scratch,
                                logprobs[r]);
    }
}
}  // namespace

extern "C" void tenth_sample(int is_bf16, const void* logits, const float* uniform, int64_t rows, int64_t cols,
                             const float* temperature, const float* top_p, const int32_t* top_k, const float* min_p,
                             int64_t* ids, float* logprobs) {
    if (is_bf16) sample((const bf16*)logits, uniform, rows, cols, temperature, top_p, top_k, min_p, ids, logprobs);
    else sample((const float*)logits, uniform, rows, cols, temperature, top_p, top_k, min_p, ids, logprobs);
}
