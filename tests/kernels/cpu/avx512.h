// AVX-512's intrinsics that the CPU's kernels use, in plain C: with -DFASTHG_AVX512_IN_C=ON the kernels of AVX-512 run, slowly,
// where the CPU has AVX2 alone. Included before the kernels, which then compile as if for AVX-512.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define __AVX512F__ 1
#ifdef AVX512_BF16
#define __AVX512BF16__ 1
#define __AVX512VNNI__ 1
#endif

namespace in_c {

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Unsigned __attribute__((vector_size(64)));
typedef long long Bits __attribute__((vector_size(64)));

// The same bits, as a type of the same size.
template <class To, class From>
inline To same(const From& from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class Item, int N>
struct Items {
    Item of[N];
};

inline float from_bf16(uint16_t half) { return same<float>((uint32_t)half << 16); }

inline uint16_t to_bf16(float value) {  // to nearest, ties to even; NaN stays NaN
    const uint32_t bits = same<uint32_t>(value);
    return value != value ? (uint16_t)(bits >> 16 | 0x40) : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline Floats max_ps(Floats a, Floats b) { return a > b ? a : b; }  // b where one is NaN
inline Floats min_ps(Floats a, Floats b) { return a < b ? a : b; }
inline Floats setzero_ps() { return Floats{}; }
inline Bits set1_epi32(int value) { return (Bits)(Ints{} + value); }
inline Bits add_epi32(Bits a, Bits b) { return (Bits)((Unsigned)a + (Unsigned)b); }
inline Bits and_epi32(Bits a, Bits b) { return a & b; }
inline Bits max_epu32(Bits a, Bits b) { return (Bits)((Unsigned)a > (Unsigned)b ? (Unsigned)a : (Unsigned)b); }

inline uint32_t reduce_max_epu32(Bits a) {
    uint32_t most = 0;
    for (int i = 0; i < 16; i++) {
        most = ((Unsigned)a)[i] > most ? ((Unsigned)a)[i] : most;
    }
    return most;
}

inline float reduce_min_ps(Floats a) {
    float least = a[0];
    for (int i = 1; i < 16; i++) {
        least = a[i] < least ? a[i] : least;
    }
    return least;
}

inline Floats cvtepi32_ps(Bits a) { return __builtin_convertvector((Ints)a, Floats); }

inline Bits cvtps_epi32(Floats a) {  // the least integer where it has none
    Ints to;
    for (int i = 0; i < 16; i++) {
        to[i] = a[i] >= -2147483648.0f && a[i] < 2147483648.0f ? (int)__builtin_rintf(a[i]) : INT32_MIN;
    }
    return (Bits)to;
}

inline __m256i cvtsepi32_epi16(Bits a) {
    Items<int16_t, 16> to;
    for (int i = 0; i < 16; i++) {
        const int value = ((Ints)a)[i];
        to.of[i] = (int16_t)(value > 32767 ? 32767 : value < -32768 ? -32768 : value);
    }
    return same<__m256i>(to);
}

inline __m128i cvtusepi32_epi8(Bits a) {
    Items<uint8_t, 16> to;
    for (int i = 0; i < 16; i++) {
        const uint32_t value = ((Unsigned)a)[i];
        to.of[i] = (uint8_t)(value > 255 ? 255 : value);
    }
    return same<__m128i>(to);
}

inline Bits madd_epi16(Bits a, Bits b) {
    const auto x = same<Items<int16_t, 32>>(a), y = same<Items<int16_t, 32>>(b);
    Ints sums;
    for (int i = 0; i < 16; i++) {
        sums[i] = x.of[2 * i] * y.of[2 * i] + x.of[2 * i + 1] * y.of[2 * i + 1];
    }
    return (Bits)sums;
}

inline Bits dpwssd_epi32(Bits sum, Bits a, Bits b) { return add_epi32(sum, madd_epi16(a, b)); }

inline Bits dpbusd_epi32(Bits sum, Bits a, Bits b) {
    const auto x = same<Items<uint8_t, 64>>(a);
    const auto y = same<Items<int8_t, 64>>(b);
    Ints sums = (Ints)sum;
    for (int i = 0; i < 64; i++) {
        sums[i / 4] += x.of[i] * y.of[i];
    }
    return (Bits)sums;
}

inline Floats dpbf16_ps(Floats sum, Bits a, Bits b) {
    const auto x = same<Items<uint16_t, 32>>(a), y = same<Items<uint16_t, 32>>(b);
    for (int i = 0; i < 16; i++) {
        for (int half = 1; half >= 0; half--) {
            sum[i] += from_bf16(x.of[2 * i + half]) * from_bf16(y.of[2 * i + half]);
        }
    }
    return sum;
}

inline __m256i cvtneps_pbh(Floats a) {
    Items<uint16_t, 16> to;
    for (int i = 0; i < 16; i++) {
        to.of[i] = to_bf16(a[i]);
    }
    return same<__m256i>(to);
}

}  // namespace in_c

#define __m512i in_c::Bits
#define __m512bh in_c::Bits
#define _mm512_max_ps in_c::max_ps
#define _mm512_min_ps in_c::min_ps
#define _mm512_setzero_ps in_c::setzero_ps
#define _mm512_set1_epi32 in_c::set1_epi32
#define _mm512_add_epi32 in_c::add_epi32
#define _mm512_and_epi32 in_c::and_epi32
#define _mm512_max_epu32 in_c::max_epu32
#define _mm512_reduce_max_epu32 in_c::reduce_max_epu32
#define _mm512_reduce_min_ps in_c::reduce_min_ps
#define _mm512_cvtepi32_ps in_c::cvtepi32_ps
#define _mm512_cvtps_epi32 in_c::cvtps_epi32
#define _mm512_cvtsepi32_epi16 in_c::cvtsepi32_epi16
#define _mm512_cvtusepi32_epi8 in_c::cvtusepi32_epi8
#define _mm512_madd_epi16 in_c::madd_epi16
#define _mm512_dpwssd_epi32 in_c::dpwssd_epi32
#define _mm512_dpbusd_epi32 in_c::dpbusd_epi32
#define _mm512_dpbf16_ps in_c::dpbf16_ps
#define _mm512_cvtneps_pbh in_c::cvtneps_pbh
