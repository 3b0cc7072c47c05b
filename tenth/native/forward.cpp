// One forward pass of the network over a ragged batch, from token ids to logits, in one call and one parallel region.
// Why: a decode step of a small network is thousands of operations of microseconds; through torch their overhead is the step.
// Here a step is some ten phases per layer with a barrier after each. In a phase a thread owns either rows (norms, rotation,
// activations) or outputs (products), so no sum is ever split and every row's result stands for itself.
// The residual stream and everything between products is float32; products read their rows as `prepare_row` leaves them.
#include <memory>

#include "paged_attention.h"
#include "routing.h"

namespace {
struct Buffers {                               // grow as needed, live as long as the engine
    std::vector<float> x, wide, query, absorbed, context, scores, pairs_wide, pairs_out, shared_wide, low;
    std::vector<uint8_t> rows, pair_rows, shared_rows;
    Visits visits;
    std::vector<Item> items;                   // of attention
    int64_t widest = 0;                        // numbers that one row needs on the way
};
template <class T> void reserve(std::vector<T>& v, int64_t size) {
    if (int64_t(v.size()) < size) v.resize(size);
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
    float inverse = 1.0f / std::sqrt(sum_row(n, [](auto v) { return v * v; }, x) / n + eps);
    map_row(n, [&](auto v, auto w) { return v * inverse * w; }, out, x, weight);
}

void swiglu(const float* gate_up, int64_t width, float* out) {
    map_row(width, [](auto g, auto u) { return g * reciprocal(1.0f + fast_exp(-g)) * u; }, out, gate_up, gate_up + width);
}

// Each thread takes one run of panels. Handing out small pieces would be kinder where somebody else uses a core, but each
// piece fetches ahead into its neighbour: 16 to 23 % slower at 8 and 4 bits.
void multiply(const Matrix& m, int64_t rows, const Source& x, const Target& y) {
    Range share = share_of(m.panels());
    product(m, share.begin, share.end, x, rows, y);
}

// One pass; every method is called by all threads of a region, and ends with all of them at a barrier.
template <class P> struct Pass {
    const Network& net;
    const Cache& cache;
    const Batch& batch;
    Buffers& buffers;
    int64_t n = batch.rows, width = net.hidden;

    float* x = buffers.x.data();               // (n, hidden) the residual stream
    uint8_t* rows = buffers.rows.data();       // what the next product reads

    template <class F> void each_row(F f) const {
        Range share = share_of(n);
        for (int64_t r = share.begin; r < share.end; ++r) f(r);
#pragma omp barrier
    }
    float* scratch() const {
        static thread_local std::vector<float> space;
        reserve(space, buffers.widest);
        return space.data();
    }

    // A row made ready for a product, and what its adapter reads off it; then the product, and what the adapters add.
    void prepare(int64_t layer_id, Site site, const Matrix& m, int64_t r, const float* from, uint8_t* to) const {
        prepare_row(m, from, to);
        if (auto* pair = batch.adapters.at(r, layer_id, site)) pair->shrink(m, from, to, low(r));
    }
    void multiply_adapted(int64_t layer_id, Site site, const Matrix& m, const Source& from, const Target& y) const {
        multiply(m, n, from, y);
        if (!batch.adapters.of_row) return;
        Range share = share_of(m.panels());
        for (int64_t panel = share.begin; panel < share.end; ++panel)
            for (int64_t r = 0; r < n; ++r)
                if (auto* pair = batch.adapters.at(r, layer_id, site)) pair->expand(panel, low(r), y.data + r * y.stride);
    }
    float* low(int64_t r) const { return buffers.low.data() + r * batch.adapters.max_rank; }

    void attend(const Layer& layer, int64_t layer_id) {
        const Attention& a = layer.attention;
        PagedAttention<P> paged{a, cache, batch, layer_id};
        float *wide = buffers.wide.data(), *query = wide, *context = buffers.context.data();
        int64_t wide_stride = a.in.width(), query_stride = wide_stride, head = a.nope + a.rope, latent_stride = a.heads * a.latent;
        each_row([&](int64_t r) {
            rms_norm(x + r * width, layer.attention_norm, width, net.eps, scratch());
            prepare(layer_id, IN, a.in, r, scratch(), rows + r * row_bytes(a.in));
        });
        multiply_adapted(layer_id, IN, a.in, {rows, row_bytes(a.in), nullptr}, {wide, wide_stride, false});
#pragma omp barrier
        each_row([&](int64_t r) { enter(paged, layer_id, r, wide + r * wide_stride); });
        if (a.q_up.data) {
            query = buffers.query.data();
            query_stride = a.q_up.width();
            multiply_adapted(layer_id, Q_UP, a.q_up, {rows, row_bytes(a.q_up), nullptr}, {query, query_stride, false});
#pragma omp barrier
        }
        each_row([&](int64_t r) {
            const float *cos = net.cos + batch.positions[r] * net.rope_half, *sin = net.sin + batch.positions[r] * net.rope_half;
            for (int64_t h = 0; h < a.heads; ++h) {
                float* q = query + r * query_stride + h * head;
                if (!a.is_latent() && a.q_norm) rms_norm(q, a.q_norm, head, a.norm_eps, q);
                rotate(q + a.nope, a.rope / 2, cos, sin);
                if (a.is_latent()) prepare_row(a.up_key[h], q, rows + r * a.heads * row_bytes(a.up_key[0]) + h * row_bytes(a.up_key[0]));
            }
        });
        float* absorbed = buffers.absorbed.data();
        if (a.is_latent()) by_head(a, a.up_key, a.latent, absorbed);
        int64_t value_stride = a.heads * a.value_width();
        static thread_local typename PagedAttention<P>::Scratch space;
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < buffers.items.size(); ++i) {
            paged.run(buffers.items[i], space,
                [&](int64_t r, int64_t h, float* to) {
                    if (a.is_latent()) std::memcpy(to, absorbed + r * latent_stride + h * a.latent, a.latent * 4);
                    std::memcpy(to + a.latent, query + r * query_stride + h * head + a.nope, a.rope * 4);
                },
                [&](int64_t r, int64_t h) { return context + r * value_stride + h * a.value_width(); });
        }
        if (a.is_latent()) {
            each_row([&](int64_t r) {
                for (int64_t h = 0; h < a.heads; ++h)
                    prepare_row(a.up_value[h], context + r * value_stride + h * a.latent, rows + (r * a.heads + h) * row_bytes(a.up_value[0]));
            });
            by_head(a, a.up_value, a.value, context);
        }
        each_row([&](int64_t r) { prepare(layer_id, OUT, a.out, r, context + r * a.heads * a.value, rows + r * row_bytes(a.out)); });
        multiply_adapted(layer_id, OUT, a.out, {rows, row_bytes(a.out), nullptr}, {x, width, true});
#pragma omp barrier
    }

    // Each head's own product of rows prepared head by head.
    void by_head(const Attention& a, const Matrix* each, int64_t out_width, float* out) const {
        Range share = share_of(a.heads);
        int64_t bytes = row_bytes(each[0]);
        for (int64_t h = share.begin; h < share.end; ++h)
            product(each[h], 0, each[h].panels(), {rows + h * bytes, a.heads * bytes, nullptr}, n, {out + h * out_width, a.heads * out_width, false});
#pragma omp barrier
    }

    // One row's keys and values into the cache; MLA also prepares the query latent for its up-projection.
    void enter(const PagedAttention<P>& paged, int64_t layer_id, int64_t r, float* row) const {
        const Attention& a = paged.a;
        int64_t position = batch.positions[r], slot = position % BLOCK;
        const float *cos = net.cos + position * net.rope_half, *sin = net.sin + position * net.rope_half;
        int64_t sequence = sequence_of(r);
        uint8_t* block = paged.block_of(sequence, position);
        if (!a.is_latent()) {
            float *k = row + a.heads * a.rope, *v = k + a.kv_heads * a.rope;
            for (int64_t g = 0; g < a.kv_heads; ++g) {
                if (a.kv_norm) rms_norm(k + g * a.rope, a.kv_norm, a.rope, a.norm_eps, k + g * a.rope);
                rotate(k + g * a.rope, a.rope / 2, cos, sin);
                paged.store_head(block, slot, g, k + g * a.rope, v + g * a.value, r + 1 == batch.starts[sequence + 1]);
            }
            return;
        }
        float* latent = row + a.q_rows;
        rms_norm(latent, a.kv_norm, a.latent, a.norm_eps, latent);
        rotate(latent + a.latent, a.rope / 2, cos, sin);
        paged.store_latent(block, slot, latent);
        if (a.q_up.data) {
            rms_norm(row, a.q_norm, a.q_rows, a.norm_eps, row);
            prepare(layer_id, Q_UP, a.q_up, r, row, rows + r * row_bytes(a.q_up));
        }
    }
    int64_t sequence_of(int64_t row) const {
        return std::upper_bound(batch.starts, batch.starts + batch.sequences + 1, row) - batch.starts - 1;
    }

    void feed_forward(const Layer& layer, int64_t layer_id) {
        if (layer.experts.count) return visit_experts(layer, layer_id);
        const FeedForward& f = layer.ffn;
        float* wide = buffers.wide.data();
        each_row([&](int64_t r) {
            rms_norm(x + r * width, layer.ffn_norm, width, net.eps, scratch());
            prepare(layer_id, GATE_UP, f.gate_up, r, scratch(), rows + r * row_bytes(f.gate_up));
        });
        multiply_adapted(layer_id, GATE_UP, f.gate_up, {rows, row_bytes(f.gate_up), nullptr}, {wide, f.gate_up.width(), false});
#pragma omp barrier
        each_row([&](int64_t r) {
            swiglu(wide + r * f.gate_up.width(), f.width(), scratch());
            prepare(layer_id, DOWN, f.down, r, scratch(), rows + r * row_bytes(f.down));
        });
        multiply_adapted(layer_id, DOWN, f.down, {rows, row_bytes(f.down), nullptr}, {x, width, true});
#pragma omp barrier
    }

    void visit_experts(const Layer& layer, int64_t layer_id) {
        const Experts& e = layer.experts;
        const FeedForward &any = e.experts[0], &shared = e.shared;
        Visits& visits = buffers.visits;
        int64_t pairs = n * e.chosen, router_width = e.router.width();
        float *scores = buffers.scores.data(), *wide = buffers.pairs_wide.data(), *out = buffers.pairs_out.data(), *shared_wide = buffers.shared_wide.data();
        uint8_t *pair_rows = buffers.pair_rows.data(), *shared_rows = buffers.shared_rows.data();
        float* router_rows = buffers.wide.data();
        each_row([&](int64_t r) {
            float* normed = router_rows + r * width;
            rms_norm(x + r * width, layer.ffn_norm, width, net.eps, normed);
            prepare_row(any.gate_up, normed, rows + r * row_bytes(any.gate_up));
            if (any.gate_up.kind == BF16)                  // the router sees what training shows it: the rounded row
                map_row(width, [](auto v) { return v; }, normed, (const bf16*)(rows + r * row_bytes(any.gate_up)));
            if (shared.gate_up.data) prepare(layer_id, GATE_UP, shared.gate_up, r, normed, shared_rows + r * row_bytes(shared.gate_up));
        });
        multiply(e.router, n, {(uint8_t*)router_rows, width * 4, nullptr}, {scores, router_width, false});
#pragma omp barrier
        each_row([&](int64_t r) {
            choose_experts(e, scores + r * router_width, visits.ids.data() + r * e.chosen, visits.weights.data() + r * e.chosen, scratch());
        });
#pragma omp single
        visits.sort(pairs, e.chosen, e.count);
        auto every_expert = [&](auto matrix, const uint8_t* from, const int32_t* index, float* to) {
            const Matrix& shape = matrix(any);
            int64_t bytes = row_bytes(shape), stride = shape.width(), pieces = (shape.panels() + 7) / 8;
#pragma omp for schedule(dynamic) nowait
            for (int64_t task = 0; task < e.count * pieces; ++task) {
                int64_t expert = task / pieces, piece = task % pieces * 8, start = visits.start(expert), count = visits.ends[expert] - start;
                if (!count) continue;
                const Matrix& m = matrix(e.experts[expert]);
                Source source{index ? from : from + start * bytes, bytes, index ? index + start : nullptr};
                product(m, piece, std::min(piece + 8, m.panels()), source, count, {to + start * stride, stride, false});
            }
        };
        every_expert([](const FeedForward& f) -> const Matrix& { return f.gate_up; }, rows, visits.source.data(), wide);
        if (shared.gate_up.data) multiply_adapted(layer_id, GATE_UP, shared.gate_up, {shared_rows, row_bytes(shared.gate_up), nullptr}, {shared_wide, shared.gate_up.width(), false});
#pragma omp barrier
        Range share = share_of(pairs);
        for (int64_t p = share.begin; p < share.end; ++p) {
            swiglu(wide + p * any.gate_up.width(), any.width(), scratch());
            prepare_row(any.down, scratch(), pair_rows + p * row_bytes(any.down));
        }
        each_row([&](int64_t r) {
            if (!shared.gate_up.data) return;
            swiglu(shared_wide + r * shared.gate_up.width(), shared.width(), scratch());
            prepare(layer_id, DOWN, shared.down, r, scratch(), shared_rows + r * row_bytes(shared.down));
        });
        every_expert([](const FeedForward& f) -> const Matrix& { return f.down; }, pair_rows, nullptr, out);
        if (shared.gate_up.data) multiply_adapted(layer_id, DOWN, shared.down, {shared_rows, row_bytes(shared.down), nullptr}, {x, width, true});
#pragma omp barrier
        each_row([&](int64_t r) {
            for (int64_t c = 0; c < e.chosen; ++c) {
                const float *from = out + visits.place[r * e.chosen + c] * any.down.width(), weight = visits.weights[r * e.chosen + c];
                map_row(width, [&](auto sum, auto y) { return sum + y * weight; }, x + r * width, (const float*)(x + r * width), from);
            }
        });
    }

    void finish(const float* norm) const {
        each_row([&](int64_t r) { rms_norm(x + r * width, norm, width, net.eps, batch.hidden + r * width); });
        Range share = share_of(batch.outputs);
        int64_t bytes = row_bytes(net.head);
        for (int64_t i = share.begin; i < share.end; ++i) prepare_row(net.head, batch.hidden + batch.output_rows[i] * width, rows + i * bytes);
#pragma omp barrier
        multiply(net.head, batch.outputs, {rows, bytes, nullptr}, {batch.logits, net.head.width(), false});
    }

    void main_layers() {
        each_row([&](int64_t r) { matrix_row(net.embed, batch.ids[r], x + r * width); });
        for (int64_t i = 0; i < net.num_layers; ++i) {
            attend(net.layers[i], i);
            feed_forward(net.layers[i], i);
        }
        finish(net.norm);
    }
    void draft_layer() {
        const Draft& d = net.draft;
        each_row([&](int64_t r) {
            float *joined = scratch(), *embedded = x + r * width;
            matrix_row(net.embed, batch.ids[r], embedded);
            rms_norm(embedded, d.embed_norm, width, net.eps, joined);
            rms_norm(batch.sources + r * width, d.hidden_norm, width, net.eps, joined + width);
            prepare_row(d.join, joined, rows + r * row_bytes(d.join));
        });
        multiply(d.join, n, {rows, row_bytes(d.join), nullptr}, {x, width, false});
#pragma omp barrier
        attend(d.layer, net.num_layers);
        feed_forward(d.layer, net.num_layers);
        finish(d.norm);
    }
};

// Room for everything that one layer needs of n rows.
void make_room(const Network& net, const Layer& layer, int64_t n, Buffers& b) {
    const Attention& a = layer.attention;
    const Experts& e = layer.experts;
    reserve(b.x, n * net.hidden);
    reserve(b.wide, n * std::max(a.in.width(), net.hidden));
    reserve(b.rows, n * std::max(row_bytes(a.in), row_bytes(a.out)));
    reserve(b.context, n * a.heads * std::max(a.value_width(), a.value));
    b.widest = std::max({b.widest, 2 * net.hidden, a.in.width(), e.count});
    if (a.q_up.data) {
        reserve(b.query, n * a.q_up.width());
        reserve(b.rows, n * row_bytes(a.q_up));
    }
    if (a.is_latent()) {
        reserve(b.absorbed, n * a.heads * a.latent);
        reserve(b.rows, n * a.heads * std::max(row_bytes(a.up_key[0]), row_bytes(a.up_value[0])));
    }
    auto one = [&](const FeedForward& f, int64_t rows, auto& wide, auto& prepared) {
        reserve(wide, rows * f.gate_up.width());
        reserve(prepared, rows * std::max(row_bytes(f.gate_up), row_bytes(f.down)));
        b.widest = std::max(b.widest, f.width());
    };
    if (!e.count) return one(layer.ffn, n, b.wide, b.rows);
    int64_t pairs = n * e.chosen;
    one(e.experts[0], pairs, b.pairs_wide, b.pair_rows);
    reserve(b.rows, n * row_bytes(e.experts[0].gate_up));
    reserve(b.scores, n * e.router.width());
    reserve(b.pairs_out, pairs * e.experts[0].down.width());
    reserve(b.visits.ids, pairs);
    reserve(b.visits.weights, pairs);
    if (e.shared.gate_up.data) one(e.shared, n, b.shared_wide, b.shared_rows);
}

// Attention's work in pieces: small enough for all threads to have some, large enough to read each block rarely.
void plan_items(const Attention& a, const Batch& batch, std::vector<Item>& items) {
    int64_t queries = batch.rows * a.heads, share = queries / (2 * omp_get_max_threads());
    int64_t size = std::min<int64_t>(32, std::max<int64_t>(4, share));
    items.clear();
    for (int64_t s = 0; s < batch.sequences; ++s)
        for (int64_t h = 0; h < a.shared_heads(); ++h) {
            int64_t count = (batch.starts[s + 1] - batch.starts[s]) * a.group();
            for (int64_t begin = 0; begin < count; begin += size) items.push_back({s, h, begin, std::min(size, count - begin)});
        }
}

template <class P> void run(const Network& net, const Cache& cache, const Batch& batch, Buffers& buffers, bool drafts) {
    int64_t n = batch.rows;
    if (drafts) make_room(net, net.draft.layer, n, buffers);
    else for (int64_t i = 0; i < net.num_layers; ++i) make_room(net, net.layers[i], n, buffers);
    reserve(buffers.low, n * batch.adapters.max_rank);
    reserve(buffers.rows, n * std::max(row_bytes(net.head), drafts ? row_bytes(net.draft.join) : 0));
    plan_items(drafts ? net.draft.layer.attention : net.layers[0].attention, batch, buffers.items);
#pragma omp parallel
    {
        Pass<P> pass{net, cache, batch, buffers};
        if (drafts) pass.draft_layer();
        else pass.main_layers();
    }
}
}  // namespace

extern "C" void* tenth_buffers_new() { return new Buffers; }
extern "C" void tenth_buffers_free(void* buffers) { delete (Buffers*)buffers; }

// Fills batch.logits and batch.hidden, and writes the cache entries of every row; `drafts`: the MTP module instead of the layers.
extern "C" void tenth_forward(const Network* net, const Cache* cache, const Batch* batch, void* buffers, int is_bf16, int drafts) {
    if (is_bf16) run<Paired>(*net, *cache, *batch, *(Buffers*)buffers, drafts);
    else run<Wide>(*net, *cache, *batch, *(Buffers*)buffers, drafts);
}
