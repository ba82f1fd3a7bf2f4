// Matrix products rows [m, k] x packed weights -> whatever the caller does with each vector of the result.
//
// Weights are packed in panels [outputs / PANEL][k][PANEL], zeros where the last panel is longer than the outputs.
#pragma once

#include "vector.h"

namespace fasthg {
namespace FASTHG_ISA {

// R rows times one panel: 2 R accumulators in registers, two loads and R broadcasts for 2 R multiply-adds.
template <int R, class Epilogue>
static inline __attribute__((always_inline)) void multiply_rows(const float* a, size_t pitch, const float* panel, int k,
                                                                const Epilogue& epilogue) {
    Vector left[R], right[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        left[r] = right[r] = Vector{};
    }
    for (int i = 0; i < k; i++) {
        __builtin_prefetch(panel + (size_t)(i + 16) * PANEL);
        __builtin_prefetch(panel + (size_t)(i + 16) * PANEL + LANES);
        const Vector b0 = load(panel + (size_t)i * PANEL), b1 = load(panel + (size_t)i * PANEL + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const float value = a[r * pitch + i];
            left[r] += value * b0;
            right[r] += value * b1;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        epilogue(r, left[r], right[r]);
    }
}

// `multiply_rows` for a number of rows known at run time; epilogue(row, left, right).
template <int R, class Epilogue>
static inline __attribute__((always_inline)) void multiply_group(int rows, const float* a, size_t pitch,
                                                                 const float* panel, int k, const Epilogue& epilogue) {
    if (rows == R) {
        multiply_rows<R>(a, pitch, panel, k, epilogue);
    } else if constexpr (R > 1) {
        multiply_group<R - 1>(rows, a, pitch, panel, k, epilogue);
    }
}

// All rows times one panel, in groups as equal as they can be; epilogue(row, left, right), and between() after a group.
template <class Epilogue, class Between>
static inline __attribute__((always_inline)) void multiply_panel(const float* a, size_t pitch, int rows,
                                                                 const float* panel, int k, const Epilogue& epilogue,
                                                                 const Between& between) {
    for (int groups = (rows + MAX_ROWS - 1) / MAX_ROWS, first = 0; groups > 0; groups--) {
        const int count = (rows - first + groups - 1) / groups;
        multiply_group<MAX_ROWS>(count, a + first * pitch, pitch, panel, k,
                                 [&](int row, Vector left, Vector right) __attribute__((always_inline)) {
                                     epilogue(first + row, left, right);
                                 });
        first += count;
        between();
    }
}

// weight [k, outputs] -> panels.
static inline void pack_panels(const float* weight, int k, int outputs, float* panels) {
    for (int first = 0; first < outputs; first += PANEL) {
        for (int i = 0; i < k; i++) {
            for (int lane = 0; lane < PANEL; lane++) {
                *panels++ = first + lane < outputs ? weight[(size_t)i * outputs + first + lane] : 0.0f;
            }
        }
    }
}

}  // namespace FASTHG_ISA
}  // namespace fasthg
