// Matrix products of rows with a step's weights, whatever these are rounded to.
#pragma once

#include "gemm.h"
#include "tiles.h"
#include "wanted.h"

namespace fasthg {
namespace FASTHG_ISA {

class Products {
   public:
    Products(const Step& step, Arena& arena, Wanted& wanted) : wanted_(wanted) {
        int rounded = 0, outputs = 0;
        const Linear* linears[] = {&step.hidden, &step.score, &step.expand, &step.next.linear, &step.pool.linear};
        for (const Linear* linear : linears) {
            rounded = larger(rounded, rounds(*linear) ? linear->units() : 0);
            outputs = larger(outputs, linear->outputs);
        }
        rounded_pitch_ = spread(rounded);
        rounded_ = arena.take(rounded ? rounded_pitch_ * MAX_ROWS : 0);
        sums_pitch_ = spread(outputs + PANEL);
        sums_ = arena.take(sums_pitch_ * MAX_ROWS);
    }

    // rows @ linear; finish(row, its sums: a vector of them from a column on).
    template <class Finish>
    inline __attribute__((always_inline)) void multiply(const float* a, size_t pitch, int rows, const Linear& linear,
                                                        const Finish& finish) {
        each_group(rows, [&](int begin, int count) __attribute__((always_inline)) {
            multiply_few(a + begin * pitch, pitch, count, linear);
            for (int r = 0; r < count; r++) {
                finish_row(linear, r, [&](const auto& sum) __attribute__((always_inline)) { finish(begin + r, sum); });
            }
        });
    }

   private:
    // A group of rows, which stay in the L1 while the weights, which lie in a row, stream past them.
    void multiply_few(const float* a, size_t pitch, int rows, const Linear& linear) {
#if FASTHG_HALVES
        if (halves(linear)) {
            return multiply_panels<Bfloat>(a, pitch, rows, linear);
        }
        if (linear.arithmetic == Arithmetic::int8) {
            for (int r = 0; r < rows; r++) {
                round_to_bytes(a + r * pitch, linear.inputs, (uint8_t*)(rounded_ + r * rounded_pitch_), worths_[r], zeros_[r]);
            }
            return multiply_panels<Int8>(rounded_, rounded_pitch_, rows, linear);
        }
#endif
#if FASTHG_INTEGERS
        if (linear.arithmetic == Arithmetic::int12) {
            const float limit = (float)int_limit(linear.inputs);
            for (int r = 0; r < rows; r++) {
                round_to_integers(a + r * pitch, linear.inputs, limit, (int16_t*)(rounded_ + r * rounded_pitch_), worths_[r]);
            }
            return multiply_panels<Int16>(rounded_, rounded_pitch_, rows, linear);
        }
#endif
        multiply_panels<Float>(a, pitch, rows, linear);
    }

    // with(a row's sums), as floats again where integers were multiplied.
    template <class With>
    inline __attribute__((always_inline)) void finish_row([[maybe_unused]] const Linear& linear, int r, const With& with) {
        const float* sums = sums_ + r * sums_pitch_;
#if FASTHG_INTEGERS
        const int padded = (linear.outputs + PANEL - 1) / PANEL * PANEL;
        const float* weight_worths = linear.panels + (size_t)padded * linear.units();
        const float worth = worths_[r];
        if (linear.arithmetic == Arithmetic::int12) {
            return with([=](int c) __attribute__((always_inline)) { return from_int32(load(sums + c)) * (worth * load(weight_worths + c)); });
        }
#endif
#if FASTHG_HALVES
        if (linear.arithmetic == Arithmetic::int8) {
            const float *weight_sums = weight_worths + padded, zero = zeros_[r];
            return with([=](int c) __attribute__((always_inline)) {
                return (from_int32(load(sums + c)) - zero * load(weight_sums + c)) * (worth * load(weight_worths + c));
            });
        }
#endif
        with([=](int c) __attribute__((always_inline)) { return load(sums + c); });
    }

    // Whether a row is rounded here, group by group.
    static bool rounds(const Linear& linear) {
        return linear.arithmetic == Arithmetic::int8 || linear.arithmetic == Arithmetic::int12;
    }

    template <class Kind>
    void multiply_panels(const float* a, size_t pitch, int rows, const Linear& linear) {
        const int units = linear.units();
        for (int first = 0; first < linear.outputs; first += PANEL) {
            multiply_group<MAX_ROWS, Kind>(rows, a, pitch, linear.panels + (size_t)first * units, units, wanted_.next(),
                                           sums_ + first, sums_pitch_);
        }
    }

#if FASTHG_INTEGERS
    // A row as integers, of which `limit` is its largest magnitude, and what one of them is worth: NaN where the row is not
    // finite.
    static void round_to_integers(const float* row, int inputs, float limit, int16_t* integers, float& worth) {
        Vector magnitudes = {};
        for (int c = 0; c < inputs; c += LANES) {
            magnitudes = larger_magnitude(magnitudes, load(row + c));
        }
        const float largest = largest_magnitude(magnitudes);
        const bool finite = largest <= 3.402823466e38f;
        const float scale = largest > 1e-30f && finite ? limit / largest : 0.0f;
        worth = finite ? largest / limit : __builtin_nanf("");
        for (int c = 0; c < inputs; c += 16) {
            store_int16(integers + c, row + c, scale);
        }
    }
#endif

#if FASTHG_HALVES
    // A row as bytes, where 0 to 255 stand for its smallest, or zero, to its largest magnitude; what one of them is worth, NaN
    // where the row is not finite; and which of them is zero.
    static void round_to_bytes(const float* row, int inputs, uint8_t* bytes, float& worth, float& zero) {
        Vector magnitudes = {}, low = {};
        for (int c = 0; c < inputs; c += LANES) {
            magnitudes = larger_magnitude(magnitudes, load(row + c));
            low = lesser(low, load(row + c));
        }
        const float largest = largest_magnitude(magnitudes), least = smallest(low), range = largest - least;
        const bool finite = largest <= 3.402823466e38f;
        const float scale = range > 1e-30f && finite ? 255.0f / range : 0.0f;
        worth = finite ? range / 255.0f : __builtin_nanf("");
        zero = finite ? __builtin_rintf(-least * scale) : 0.0f;
        for (int c = 0; c < inputs; c += LANES) {
            store_bytes(bytes + c, load(row + c), scale, zero);
        }
    }
#endif

    Wanted& wanted_;
    size_t rounded_pitch_ = 0, sums_pitch_ = 0;
    float *rounded_ = nullptr, *sums_ = nullptr;
    [[maybe_unused]] float worths_[MAX_ROWS] = {}, zeros_[MAX_ROWS] = {};  // of a group's rows
};

}  // namespace FASTHG_ISA
}  // namespace fasthg
