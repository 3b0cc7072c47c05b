// Weights as torch holds them into panels (panels.h), and one product alone for tests and benchmarks.
#include "panels.h"

// in (rows, cols) row by row in the kind's own type: float32, bfloat16, int8 codes, or nibbles (low one first, code + 8).
// out: panels of 16 rows; rows beyond the last are zeros.
extern "C" void tenth_pack(int64_t kind, const uint8_t* in, int64_t rows, int64_t cols, uint8_t* out) {
    Matrix m{out, nullptr, nullptr, rows, cols, kind, cols};
#pragma omp parallel for schedule(static)
    for (int64_t panel = 0; panel < m.panels(); ++panel) {
        uint8_t* to = out + panel * m.panel_bytes();
        if (panel * 16 + 16 > rows) std::memset(to, kind == I8 ? 128 : kind == I4 ? 0x88 : 0, m.panel_bytes());
        for (int64_t lane = 0; lane < std::min<int64_t>(16, rows - panel * 16); ++lane) {
            int64_t row = panel * 16 + lane;
            if (kind == F32)
                for (int64_t k = 0; k < cols; ++k) std::memcpy(to + (k * 16 + lane) * 4, in + (row * cols + k) * 4, 4);
            if (kind == BF16)
                for (int64_t k = 0; k < cols; k += 2) std::memcpy(to + (k / 2 * 16 + lane) * 4, in + (row * cols + k) * 2, 4);
            if (kind == I8)
                for (int64_t k = 0; k < cols; ++k) to[k / 4 * 64 + lane * 4 + k % 4] = uint8_t(in[row * cols + k] + 128);
            if (kind == I4)
                for (int64_t k = 0; k < cols; k += 8)
                    for (int64_t i = 0; i < 4; ++i) {      // low nibbles: inner indices k..k+3, high ones: k+4..k+7
                        auto code = [&](int64_t at) { return in[(row * cols + at) / 2] >> (at % 2 * 4) & 15; };
                        to[k / 8 * 64 + lane * 4 + i] = uint8_t(code(k + i) | code(k + 4 + i) << 4);
                    }
        }
    }
}

// scales (rows, groups) float16 -> [panel][group][16]; rows beyond the last are zeros.
extern "C" void tenth_pack_scales(const uint16_t* in, int64_t rows, int64_t groups, uint16_t* out) {
    for (int64_t panel = 0; panel < (rows + 15) / 16; ++panel)
        for (int64_t g = 0; g < groups; ++g)
            for (int64_t lane = 0; lane < 16; ++lane)
                out[(panel * groups + g) * 16 + lane] = panel * 16 + lane < rows ? in[(panel * 16 + lane) * groups + g] : 0;
}

// y (count, width) = x (count, cols) float32 times the matrix, over all threads.
extern "C" void tenth_product(const Matrix* m, const float* x, int64_t count, float* y) {
    int64_t stride = row_bytes(*m), pieces = (m->panels() + 3) / 4;
    std::vector<uint8_t> rows(count * stride + 64);
    uint8_t* data = (uint8_t*)((uintptr_t(rows.data()) + 63) / 64 * 64);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; ++i) prepare_row(*m, x + i * m->cols, data + i * stride);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < pieces; ++p)
            product(*m, p * 4, std::min(p * 4 + 4, m->panels()), Source{data, stride, nullptr}, count, Target{y, m->width(), false});
    }
}

// Row ids[i] of the matrix as float32, for each i.
extern "C" void tenth_matrix_rows(const Matrix* m, const int64_t* ids, int64_t count, float* out) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; ++i) matrix_row(*m, ids[i], out + i * m->cols);
}
