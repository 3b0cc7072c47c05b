// Which experts each row visits, and in which order the experts take their rows (DeepSeek-V2 and V3, section 2.1.2).
#pragma once
#include "network.h"

static inline void score(const Experts& e, float* logits) {
    if (!e.is_softmax) {
        for (int64_t i = 0; i < e.count; ++i) logits[i] = 1.0f / (1.0f + std::exp(-logits[i]));
        return;
    }
    float top = row_max(logits, e.count), sum = 0;
    for (int64_t i = 0; i < e.count; ++i) sum += logits[i] = std::exp(logits[i] - top);
    for (int64_t i = 0; i < e.count; ++i) logits[i] /= sum;
}

// scores (count, raw logits; become what they are called), -> ids and weights (chosen), as model/router.py does.
static inline void choose_experts(const Experts& e, float* scores, int32_t* ids, float* weights, float* biased) {
    score(e, scores);
    for (int64_t i = 0; i < e.count; ++i) biased[i] = scores[i] + (e.is_biased ? e.router_bias[i] : 0.0f);
    if (e.groups > 1) {                        // the worthiest groups stay open
        int64_t size = e.count / e.groups;
        std::vector<float> worth(e.groups);
        for (int64_t g = 0; g < e.groups; ++g) {
            float first = -INFINITY, second = -INFINITY;
            for (int64_t i = g * size; i < (g + 1) * size; ++i) {
                if (biased[i] > first) { second = first; first = biased[i]; }
                else if (biased[i] > second) second = biased[i];
            }
            worth[g] = e.is_biased ? first + second : first;
        }
        for (int64_t g = 0; g < e.groups; ++g) {
            int64_t better = 0;
            for (int64_t h = 0; h < e.groups; ++h) better += worth[h] > worth[g] || (worth[h] == worth[g] && h < g);
            if (better >= e.kept_groups) std::fill(biased + g * size, biased + (g + 1) * size, -INFINITY);
        }
    }
    float total = 1e-20f;
    for (int64_t c = 0; c < e.chosen; ++c) {
        int64_t best = -1;
        for (int64_t i = 0; i < e.count; ++i) {
            bool taken = false;
            for (int64_t p = 0; p < c; ++p) taken |= ids[p] == i;
            if (!taken && (best < 0 || biased[i] > biased[best])) best = i;
        }
        ids[c] = int32_t(best);
        weights[c] = scores[best];
        total += scores[best];
    }
    for (int64_t c = 0; c < e.chosen; ++c) weights[c] *= (e.normalised ? 1.0f / total : 1.0f) * e.scaling;
}

// (row, choice) pairs sorted by expert.
struct Visits {
    std::vector<int32_t> ids;                  // (rows, chosen) expert
    std::vector<float> weights;                // (rows, chosen)
    std::vector<int32_t> ends, source, place;  // (experts) ends; (pairs) row of x; (rows, chosen) pair

    void sort(int64_t pairs, int64_t chosen, int64_t experts) {
        ends.assign(experts, 0);
        source.resize(pairs);
        place.resize(pairs);
        for (int64_t i = 0; i < pairs; ++i) ++ends[ids[i]];
        int32_t sum = 0;
        for (auto& end : ends) { int32_t count = end; end = sum; sum += count; }
        for (int64_t i = 0; i < pairs; ++i) {
            int32_t at = ends[ids[i]]++;
            source[at] = int32_t(i / chosen);
            place[i] = at;
        }
    }
    int64_t start(int64_t expert) const { return expert ? ends[expert - 1] : 0; }
};
