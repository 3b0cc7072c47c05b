// Read-only memory bandwidth: two sums over one large array, by as many threads as the caller names.
// Each thread walks its own contiguous part with eight independent vector sums, so that neither an addition's
// latency nor one stream's prefetcher is the limit. The result is returned so that nothing can be left out.
#include <cstddef>
#include <cstdint>
#include <omp.h>

typedef uint64_t Vec __attribute__((vector_size(64)));

extern "C" uint64_t read_all(const void *data, size_t bytes, int threads) {
    const Vec *vectors = static_cast<const Vec *>(data);
    const size_t count = bytes / sizeof(Vec) / 8 * 8;
    uint64_t total = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : total)
    for (int part = 0; part < threads; part++) {
        const size_t first = count / 8 * part / threads * 8, last = count / 8 * (part + 1) / threads * 8;
        Vec sums[8] = {};
        for (size_t i = first; i < last; i += 8)
            for (int j = 0; j < 8; j++) sums[j] += vectors[i + j];
        for (int j = 0; j < 8; j++)
            for (int lane = 0; lane < 8; lane++) total += sums[j][lane];
    }
    return total;
}
