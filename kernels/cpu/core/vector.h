// One vector register of floats, by the compiler's vector extensions: the same source for every instruction set.
//
// Everything lies in a namespace named after the instruction set that it is compiled for, and nothing of the standard
// library is used: an inline function that two translation units share would be linked once, for one of them.
#pragma once

#include <stddef.h>
#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fasthg {
namespace FASTHG_ISA {

#if defined(__AVX512F__)
constexpr int LANES = 16, MAX_ROWS = 12;
#elif defined(__AVX2__)
constexpr int LANES = 8, MAX_ROWS = 6;  // 12 of 16
#elif defined(__aarch64__)
constexpr int LANES = 4, MAX_ROWS = 12;  // 24 of 32
#else
constexpr int LANES = 4, MAX_ROWS = 6;
#endif
constexpr int PANEL = 2 * LANES;  // outputs that a matrix product computes together

typedef float Vector __attribute__((vector_size(4 * LANES)));

static inline Vector load(const float* from) {
    Vector value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

static inline void store(float* to, Vector value) { __builtin_memcpy(to, &value, sizeof value); }

// NaN stays NaN.
static inline Vector relu(Vector x) {
#if defined(__AVX512F__)
    return _mm512_max_ps(_mm512_setzero_ps(), x);
#elif defined(__AVX2__)
    return _mm256_max_ps(_mm256_setzero_ps(), x);
#else
    const Vector zero = {};
    return x < zero ? zero : x;
#endif
}

static inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#else
    return b > a ? b : a;
#endif
}

static inline float sum(Vector x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) {
        total += x[i];
    }
    return total;
}

static inline int smaller(int a, int b) { return a < b ? a : b; }

}  // namespace FASTHG_ISA
}  // namespace fasthg
