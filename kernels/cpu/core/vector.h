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
constexpr int LANES = 16, MAX_ROWS = 12;  // 24 of 32 registers accumulate
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

// b where one of them is NaN.
static inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#else
    return a > b ? a : b;
#endif
}

// Sixteen floats times `scale`, rounded to 16-bit integers; the larger of magnitudes, of which infinity and NaN are the largest.
#if defined(__AVX512F__)
#define FASTHG_INTEGERS 1
static inline void store_int16(int16_t* to, const float* from, float scale) {
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(load(from) * scale)));
}

static inline Vector larger_magnitude(Vector a, Vector b) {
    return (Vector)_mm512_max_epu32((__m512i)a, _mm512_and_epi32((__m512i)b, _mm512_set1_epi32(0x7fffffff)));
}

static inline float largest_magnitude(Vector a) {
    const uint32_t bits = _mm512_reduce_max_epu32((__m512i)a);
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

static inline Vector from_int32(Vector bits) { return _mm512_cvtepi32_ps((__m512i)bits); }
#elif defined(__AVX2__)
#define FASTHG_INTEGERS 1
static inline void store_int16(int16_t* to, const float* from, float scale) {
    const __m256i left = _mm256_cvtps_epi32(load(from) * scale), right = _mm256_cvtps_epi32(load(from + LANES) * scale);
    const __m256i quarters = _mm256_packs_epi32(left, right);  // the lower half of each, then the upper
    _mm256_storeu_si256((__m256i*)to, _mm256_permute4x64_epi64(quarters, 0xd8));
}

static inline Vector larger_magnitude(Vector a, Vector b) {
    return (Vector)_mm256_max_epu32((__m256i)a, _mm256_and_si256((__m256i)b, _mm256_set1_epi32(0x7fffffff)));
}

static inline float largest_magnitude(Vector a) {
    const __m256i bits = (__m256i)a;
    __m128i most = _mm_max_epu32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    most = _mm_max_epu32(most, _mm_shuffle_epi32(most, 0x4e));
    most = _mm_max_epu32(most, _mm_shuffle_epi32(most, 0xb1));
    return _mm_cvtss_f32((__m128)most);
}

static inline Vector from_int32(Vector bits) { return _mm256_cvtepi32_ps((__m256i)bits); }
#endif

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#define FASTHG_HALVES 1
// Sixteen floats rounded to bf16.
static inline void store_bf16(uint16_t* to, Vector value) {
    _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(value));
}

// Sixteen floats times `scale`, plus `zero`, rounded to bytes; none is below zero.
static inline void store_bytes(uint8_t* to, Vector value, float scale, float zero) {
    _mm_storeu_si128((__m128i*)to, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(value * scale + zero)));
}

static inline float smallest(Vector a) { return _mm512_reduce_min_ps(a); }

static inline Vector lesser(Vector a, Vector b) { return _mm512_min_ps(a, b); }
#endif

static inline float sum(Vector x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) {
        total += x[i];
    }
    return total;
}

static inline int smaller(int a, int b) { return a < b ? a : b; }

static inline int larger(int a, int b) { return a > b ? a : b; }

}  // namespace FASTHG_ISA
}  // namespace fasthg
