// The whole network as the forward pass sees it: packed weights, the paged cache, one ragged batch of tokens.
// Mirrored field by field by tenth/engine/native_network.py.
#pragma once
#include <omp.h>

#include "adapters.h"

constexpr int64_t BLOCK = 64;                  // positions of one cache block

struct Attention {
    Matrix in, q_up, out;                      // GQA: q, k, v rows; MLA: q or its latent, kv latent, rotary key. q_up: MLA's q_b
    const Matrix *up_key, *up_value;           // MLA, one per head: query -> latent, latent -> value
    const float *q_norm, *kv_norm;             // MLA: of the latents; GQA: of every query and every key head, or null
    int64_t heads, kv_heads, nope, rope, value, latent, q_rows;   // GQA: nope = latent = 0, rope = value = head width
    float scale, norm_eps;

    bool is_latent() const { return latent > 0; }
    int64_t shared_heads() const { return is_latent() ? 1 : kv_heads; }    // heads that the cache holds
    int64_t group() const { return heads / shared_heads(); }               // queries of one cached head
    int64_t key_width() const { return latent + rope; }                    // of a cached key
    int64_t value_width() const { return is_latent() ? latent : value; }   // of a cached value
};

struct FeedForward {
    Matrix gate_up, down;
    int64_t width() const { return gate_up.rows / 2; }
};

struct Experts {
    Matrix router;
    const float* router_bias;
    const FeedForward* experts;
    FeedForward shared;                        // data null: none
    int64_t count, chosen, groups, kept_groups, normalised;
    int64_t is_softmax;                        // scores: softmax, else sigmoid
    int64_t is_biased;                         // choice by biased scores, a group worth its best two; else plain, its best one
    float scaling, padding;
};

struct Layer {
    const float *attention_norm, *ffn_norm;
    Attention attention;
    FeedForward ffn;                           // where experts.count is 0
    Experts experts;
};

struct Draft {                                 // the MTP module; `data` of join null: none
    const float *embed_norm, *hidden_norm, *norm;
    Matrix join;                               // eh_proj
    Layer layer;
};

struct Network {
    int64_t hidden, num_layers, rope_half;
    const Layer* layers;
    Matrix embed, head;
    const float *norm, *cos, *sin;
    float eps, padding;
    Draft draft;
};

// Entries of one layer in one block. Compute cells are float32 or bfloat16, PER_WORD of them in a word.
// GQA, per kv head: keys [key / PER_WORD][64][PER_WORD], values [64 / PER_WORD][value][PER_WORD], as the products read them.
// MLA: one row per position [64][latent + rope], since the same numbers are keys and values.
// int8: the same with bytes, then float32 scales: GQA [head][keys, values][64]; MLA [64][latent, rope].
struct Cache {
    uint8_t* data;
    int64_t layers, layer_bytes, is_int8;
    uint8_t* at(int64_t block, int64_t layer) const { return data + (block * layers + layer) * layer_bytes; }
};

struct Batch {
    int64_t rows, sequences, outputs, table_width;
    const int64_t *ids, *positions, *starts;   // starts (sequences + 1): rows of a sequence are neighbours, positions ascend
    const int32_t* tables;                     // (sequences, table_width) blocks
    const int64_t* output_rows;                // rows whose logits are wanted
    const int64_t* firsts;                     // (sequences) first position attended to; null: 0
    float* logits;                             // (outputs, head.width())
    float* hidden;                             // (rows, hidden) after the final norm
    const float* sources;                      // draft: (rows, hidden) of the position before each row
    Adapters adapters;                         // a draft module has none
};

// What is left of a run of work items for one of several threads.
struct Range { int64_t begin, end; };
static inline Range share_of(int64_t n) {
    int64_t id = omp_get_thread_num(), size = omp_get_num_threads();
    return {n * id / size, n * (id + 1) / size};
}
