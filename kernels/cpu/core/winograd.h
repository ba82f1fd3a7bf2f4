// 3x3 convolution by Winograd's F(4x4, 3x3): 36 products for 16 outputs, where direct convolution has 144.
//
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016): Y = A^T [(G g G^T) * (B^T d B)] A with the
// points 0, 1, -1, 2, -2 and infinity.
#pragma once

#include "gemm.h"

namespace fasthg {
namespace FASTHG_ISA {

constexpr int FREQUENCIES = 36;

// out = B^T in, over six vectors `step` apart.
static inline __attribute__((always_inline)) void to_frequencies(const Vector* in, int step, Vector* out, int out_step) {
    const Vector d0 = in[0], d1 = in[step], d2 = in[2 * step], d3 = in[3 * step], d4 = in[4 * step], d5 = in[5 * step];
    const Vector even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, even2 = d4 - d2, odd2 = 2.0f * (d3 - d1);
    out[0] = 4.0f * d0 + (d4 - 5.0f * d2);
    out[out_step] = even + odd;
    out[2 * out_step] = even - odd;
    out[3 * out_step] = even2 + odd2;
    out[4 * out_step] = even2 - odd2;
    out[5 * out_step] = 4.0f * d1 + (d5 - 5.0f * d3);
}

// out = A^T in, from six vectors to four.
static inline __attribute__((always_inline)) void from_frequencies(const Vector* in, int step, Vector* out,
                                                                   int out_step) {
    const Vector m1 = in[step], m2 = in[2 * step], m3 = in[3 * step], m4 = in[4 * step];
    const Vector p = m1 + m2, q = m1 - m2, r = m3 + m4, s = m3 - m4;
    out[0] = in[0] + p + r;
    out[out_step] = 2.0f * s + q;
    out[2 * out_step] = 4.0f * r + p;
    out[3 * out_step] = 8.0f * s + q + in[5 * step];
}

// Pixel vectors load(row, column) of a 6x6 window -> put(frequency, vector).
template <class Load, class Put>
static inline __attribute__((always_inline)) void transform_input(const Load& load_pixel, const Put& put) {
    Vector columns[FREQUENCIES];
#pragma GCC unroll 6
    for (int c = 0; c < 6; c++) {
        Vector pixel[6];
#pragma GCC unroll 6
        for (int r = 0; r < 6; r++) {
            pixel[r] = load_pixel(r, c);
        }
        to_frequencies(pixel, 1, columns + c, 6);
    }
#pragma GCC unroll 6
    for (int r = 0; r < 6; r++) {
        Vector row[6];
        to_frequencies(columns + 6 * r, 1, row, 1);
#pragma GCC unroll 6
        for (int c = 0; c < 6; c++) {
            put(6 * r + c, row[c]);
        }
    }
}

// Vectors load(frequency) -> store(row, column, vector) of the 4x4 outputs.
template <class Load, class Store>
static inline __attribute__((always_inline)) void transform_output(const Load& load_frequency,
                                                                   const Store& store_pixel) {
    Vector columns[24];
#pragma GCC unroll 6
    for (int c = 0; c < 6; c++) {
        Vector m[6];
#pragma GCC unroll 6
        for (int r = 0; r < 6; r++) {
            m[r] = load_frequency(6 * r + c);
        }
        from_frequencies(m, 1, columns + c, 6);
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        Vector row[4];
        from_frequencies(columns + 6 * r, 1, row, 1);
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            store_pixel(r, c, row[c]);
        }
    }
}

// weight [9, inputs, outputs] -> [outputs / PANEL][36][inputs][PANEL], in float64.
static inline void pack_winograd(const float* weight, int inputs, int outputs, float* packed) {
    static const double G[6][3] = {{1. / 4, 0, 0},          {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
                                   {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1}};
    const size_t tap = (size_t)inputs * outputs;
    for (int first = 0; first < outputs; first += PANEL) {
        const int lanes = smaller(PANEL, outputs - first);
        float* panel = packed + (size_t)first * inputs * FREQUENCIES;
        for (int i = 0; i < inputs; i++) {
            double rows[6][3][PANEL];
            const float* taps = weight + (size_t)i * outputs + first;
            for (int a = 0; a < 6; a++) {
                for (int c = 0; c < 3; c++) {
                    for (int lane = 0; lane < lanes; lane++) {
                        rows[a][c][lane] = G[a][0] * taps[c * tap + lane] + G[a][1] * taps[(3 + c) * tap + lane] +
                                           G[a][2] * taps[(6 + c) * tap + lane];
                    }
                }
            }
            for (int k = 0; k < FREQUENCIES; k++) {
                const double* g = G[k % 6];
                float* out = panel + ((size_t)k * inputs + i) * PANEL;
                for (int lane = 0; lane < PANEL; lane++) {
                    const double(*r)[PANEL] = rows[k / 6];
                    out[lane] = lane < lanes ? (float)(g[0] * r[0][lane] + g[1] * r[1][lane] + g[2] * r[2][lane]) : 0.0f;
                }
            }
        }
    }
}

// `pack_winograd` in integers [outputs / PANEL][36][inputs / 2][PANEL][2], then what one of them is worth
// [outputs / PANEL][36][PANEL]: a scale for each output and frequency. `floats` holds what `pack_winograd` gave.
static inline void quantise_winograd(const float* floats, int inputs, int outputs, int16_t* packed) {
    const int panels = (outputs + PANEL - 1) / PANEL;
    float* scales = (float*)(packed + (size_t)panels * FREQUENCIES * inputs * PANEL);
    for (int k = 0; k < panels * FREQUENCIES; k++, floats += (size_t)inputs * PANEL) {
        round_panel([&](int i, int lane) { return floats[i * PANEL + lane]; }, inputs,
                    packed + (size_t)k * inputs * PANEL, scales + k * PANEL);
    }
}

}  // namespace FASTHG_ISA
}  // namespace fasthg
