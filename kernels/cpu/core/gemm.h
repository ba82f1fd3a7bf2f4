// Matrix products rows [m, k] x packed weights.
//
// Weights are packed in panels [outputs / PANEL][k][PANEL] of units, zeros where the last panel is longer than the
// outputs. A unit of halves or 16-bit integers holds inputs 2 k and 2 k + 1, one of bytes four.
#pragma once

#include "vector.h"

namespace fasthg {
namespace FASTHG_ISA {

// What a product multiplies: units of four bytes, which hold a float, or two or four numbers that are multiplied and added.
struct Float {
    static inline Vector multiply_add(Vector sum, const float* a, Vector b) { return sum + *a * b; }
};
#if FASTHG_INTEGERS
static inline int unit_bits(const float* a) {
    int bits;
    __builtin_memcpy(&bits, a, sizeof bits);
    return bits;
}
struct Int16 {  // the sums are 32-bit integers
    static inline Vector multiply_add(Vector sum, const float* a, Vector b) {
#if defined(__AVX512VNNI__)
        return (Vector)_mm512_dpwssd_epi32((__m512i)sum, _mm512_set1_epi32(unit_bits(a)), (__m512i)b);
#elif defined(__AVX512F__)
        const __m512i products = _mm512_madd_epi16(_mm512_set1_epi32(unit_bits(a)), (__m512i)b);
        return (Vector)_mm512_add_epi32((__m512i)sum, products);
#else
        const __m256i products = _mm256_madd_epi16(_mm256_set1_epi32(unit_bits(a)), (__m256i)b);
        // In this order: where it may put all products first, GCC keeps the sums on the stack.
        asm volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
        return sum;
#endif
    }
};
#endif
#if FASTHG_HALVES
struct Bfloat {
    static inline Vector multiply_add(Vector sum, const float* a, Vector b) {
        return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(unit_bits(a)), (__m512bh)b);
    }
};
struct Int8 {  // rows of unsigned, weights of signed bytes; the sums are 32-bit integers
    static inline Vector multiply_add(Vector sum, const float* a, Vector b) {
        return (Vector)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(unit_bits(a)), (__m512i)b);
    }
};
#endif

constexpr int LINE = 16;  // floats, of the cache

// Memory that will be wanted soon: a power of two of cache lines; one, and the line behind it, where nothing is.
struct Ahead {
    const float* from;
    size_t mask;  // of the first float of each of its lines
};

// R rows times one panel of an even number of units, to `out`: 2 R accumulators in registers, two loads and R broadcasts for
// 2 R multiply-adds, and a line of what is wanted next asked for. Two in two steps: a burst of requests would hold up the loads
// behind it. Never inlined: what surrounds it would take the registers that its accumulators and addresses need.
template <int R, class Kind>
static __attribute__((noinline)) void multiply_rows(const float* a, size_t pitch, const float* panel, int k, Ahead ahead,
                                                    float* out, size_t out_pitch) {
    Vector left[R], right[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        left[r] = right[r] = Vector{};
    }
    // Three rows from one address. Hidden from the compiler, which would keep one for each row and run out of registers.
    constexpr int THREES = (R + 2) / 3;
    const float* threes[THREES];
#pragma GCC unroll 8
    for (int three = 0; three < THREES; three++) {
        threes[three] = a + (size_t)3 * three * pitch;
        asm("" : "+r"(threes[three]));
    }
    const float* const end = panel + (size_t)k * PANEL;
    for (size_t line = 0; panel < end; panel += 2 * PANEL) {
        __builtin_prefetch(ahead.from + line, 0, 2);
        __builtin_prefetch(ahead.from + line + LINE, 0, 2);
        line = (line + 2 * LINE) & ahead.mask;
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            const Vector b0 = load(panel + i * PANEL), b1 = load(panel + i * PANEL + LANES);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) {
                const float* unit = threes[r / 3] + r % 3 * pitch + i;
                left[r] = Kind::multiply_add(left[r], unit, b0);
                right[r] = Kind::multiply_add(right[r], unit, b1);
            }
        }
#pragma GCC unroll 8
        for (int three = 0; three < THREES; three++) {
            threes[three] += 2;
            asm("" : "+r"(threes[three]));
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        store(out + r * out_pitch, left[r]);
        store(out + r * out_pitch + LANES, right[r]);
    }
}

// `multiply_rows` for a number of rows known at run time.
template <int R, class Kind>
static inline void multiply_group(int rows, const float* a, size_t pitch, const float* panel, int k, Ahead ahead,
                                  float* out, size_t out_pitch) {
    if (rows == R) {
        multiply_rows<R, Kind>(a, pitch, panel, k, ahead, out, out_pitch);
    } else if constexpr (R > 1) {
        multiply_group<R - 1, Kind>(rows, a, pitch, panel, k, ahead, out, out_pitch);
    }
}

// Rows in groups as equal as they can be: visit(first row, count).
template <class Visit>
static inline __attribute__((always_inline)) void each_group(int rows, const Visit& visit) {
    for (int groups = (rows + MAX_ROWS - 1) / MAX_ROWS, first = 0; groups > 0; groups--) {
        const int count = (rows - first + groups - 1) / groups;
        visit(first, count);
        first += count;
    }
}

// The upper half of a float's bits, rounded to nearest, ties to even; for finite values.
static inline uint16_t to_bf16(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// weight [k, outputs], k even -> panels of bf16 pairs.
static inline void pack_panels_bf16(const float* weight, int k, int outputs, uint16_t* panels) {
    for (int first = 0; first < outputs; first += PANEL) {
        for (int i = 0; i < k; i += 2) {
            for (int lane = 0; lane < PANEL; lane++) {
                for (int half = 0; half < 2; half++) {
                    const bool inside = first + lane < outputs;
                    *panels++ = inside ? to_bf16(weight[(size_t)(i + half) * outputs + first + lane]) : 0;
                }
            }
        }
    }
}

// Magnitude of the integers that stand for inputs and weights: the sum of their products over all inputs fits 31 bits.
static inline int int_limit(int inputs) {
    const double fits = __builtin_sqrt(2147483647.0 / inputs);
    return fits < 32767 ? (int)fits : 32767;
}

// The largest magnitude of at(input); NaN where one is not finite.
template <class At>
static inline float largest_of(const At& at, int inputs) {
    float largest = 0;
    for (int i = 0; i < inputs; i++) {
        const float magnitude = __builtin_fabsf(at(i));
        if (!(magnitude <= 3.402823466e38f)) {
            return __builtin_nanf("");
        }
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

// at(input, lane) of one panel, inputs even -> pairs of integers [inputs / 2][PANEL][2], and what one of them is worth,
// lane by lane.
template <class At>
static inline void round_panel(const At& at, int inputs, int16_t* packed, float* worth) {
    const float limit = (float)int_limit(inputs);
    for (int lane = 0; lane < PANEL; lane++) {
        const float largest = largest_of([&](int i) { return at(i, lane); }, inputs);
        worth[lane] = largest / limit;
        for (int i = 0; i < inputs; i++) {
            const float scaled = largest > 0 ? at(i, lane) / largest * limit : 0;
            packed[((size_t)(i / 2) * PANEL + lane) * 2 + i % 2] = (int16_t)__builtin_rintf(scaled);
        }
    }
}

// weight [k, outputs], k even -> panels of integers, then what one of an output's is worth: [padded outputs].
static inline void pack_panels_int12(const float* weight, int k, int outputs, int16_t* panels) {
    const int padded = (outputs + PANEL - 1) / PANEL * PANEL;
    float* worth = (float*)(panels + (size_t)k * padded);
    for (int first = 0; first < outputs; first += PANEL) {
        round_panel([&](int i, int lane) { return first + lane < outputs ? weight[(size_t)i * outputs + first + lane] : 0.0f; },
                    k, panels + (size_t)first * k, worth + first);
    }
}

// weight [k, outputs], k a multiple of four -> panels of bytes, then what one of an output's integers is worth, and their
// sum over the inputs: [padded outputs] each.
static inline void pack_panels_int8(const float* weight, int k, int outputs, int8_t* panels) {
    const int padded = (outputs + PANEL - 1) / PANEL * PANEL;
    float *worth = (float*)(panels + (size_t)k * padded), *sums = worth + padded;
    for (int output = 0; output < padded; output++) {
        const auto at = [&](int i) { return output < outputs ? weight[(size_t)i * outputs + output] : 0.0f; };
        const float largest = largest_of(at, k);
        float total = 0;
        int8_t* lane = panels + ((size_t)(output / PANEL) * k * PANEL + output % PANEL * 4);
        for (int i = 0; i < k; i++) {
            const float rounded = largest > 0 ? __builtin_rintf(at(i) / largest * 127) : 0;
            lane[(size_t)(i / 4) * PANEL * 4 + i % 4] = (int8_t)rounded;
            total += rounded;
        }
        worth[output] = largest / 127;
        sums[output] = total;
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
