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
        size_t rounded = 0;
        int outputs = 0;
        const Linear* linears[] = {&step.hidden, &step.score, &step.expand, &step.next.linear, &step.pool.linear};
        for (const Linear* linear : linears) {
            const size_t units = rounded_units(*linear);
            rounded = units > rounded ? units : rounded;
            outputs = larger(outputs, linear->outputs);
        }
        rounded_pitch_ = spread(rounded);
        rounded_ = arena.take(rounded ? rounded_pitch_ * MAX_ROWS : 0);
        sums_pitch_ = spread(outputs + PANEL);
        sums_ = arena.take(sums_pitch_ * MAX_ROWS);
    }

    // rows @ linear; finish(row, its sums).
    template <class Finish>
    inline __attribute__((always_inline)) void multiply(const float* a, size_t pitch, int rows, const Linear& linear,
                                                        const Finish& finish) {
        each_group(rows, [&](int begin, int count) __attribute__((always_inline)) {
            multiply_few(a + begin * pitch, pitch, count, linear);
            for (int r = 0; r < count; r++) {
                finish(begin + r, sums_ + r * sums_pitch_);
            }
        });
    }

   private:
    // A group of rows, which stay in the L1 while the weights, which lie in a row, stream past them.
    void multiply_few(const float* a, size_t pitch, int rows, const Linear& linear) {
#if FASTHG_HALVES
        if (halves(linear)) {
            return multiply_panels<Bfloat>(a, pitch, rows, linear, linear.inputs / 2);
        }
        if (linear.arithmetic == Arithmetic::int8) {
            return multiply_bytes(a, pitch, rows, linear);
        }
#endif
#if FASTHG_INTEGERS
        if (linear.arithmetic == Arithmetic::int12) {
            return multiply_integers(a, pitch, rows, linear);
        }
#endif
        multiply_panels<Float>(a, pitch, rows, linear, linear.inputs);
    }

    // Of a row that is rounded here, group by group.
    static int rounded_units(const Linear& linear) {
        switch (linear.arithmetic) {
            case Arithmetic::int8: return linear.inputs / 4;
            case Arithmetic::int12: return linear.inputs / 2;
            default: return 0;
        }
    }

    template <class Kind>
    void multiply_panels(const float* a, size_t pitch, int rows, const Linear& linear, int units) {
        for (int first = 0; first < linear.outputs; first += PANEL) {
            multiply_group<MAX_ROWS, Kind>(rows, a, pitch, linear.panels + (size_t)first * units, units, wanted_.next(),
                                           sums_ + first, sums_pitch_);
        }
    }

#if FASTHG_INTEGERS
    // The same with each row rounded to integers, the largest of which its largest magnitude becomes.
    void multiply_integers(const float* a, size_t pitch, int rows, const Linear& linear) {
        const int inputs = linear.inputs, padded = (linear.outputs + PANEL - 1) / PANEL * PANEL;
        const float* weight_worth = linear.panels + (size_t)padded * inputs / 2;
        float worth[MAX_ROWS];
        for (int r = 0; r < rows; r++) {
            worth[r] = round_to_integers(a + r * pitch, inputs, (int16_t*)(rounded_ + r * rounded_pitch_));
        }
        multiply_panels<Int16>(rounded_, rounded_pitch_, rows, linear, inputs / 2);
        for (int r = 0; r < rows; r++) {
            float* sums = sums_ + r * sums_pitch_;
            for (int c = 0; c < linear.outputs; c += LANES) {
                store(sums + c, from_int32(load(sums + c)) * (worth[r] * load(weight_worth + c)));
            }
        }
    }

    // What one of a row's integers is worth: NaN where the row is not finite.
    static float round_to_integers(const float* row, int inputs, int16_t* integers) {
        Vector magnitudes = {};
        for (int c = 0; c < inputs; c += LANES) {
            magnitudes = larger_magnitude(magnitudes, load(row + c));
        }
        const float largest = largest_magnitude(magnitudes), limit = (float)int_limit(inputs);
        const bool finite = largest <= 3.402823466e38f;
        const float scale = largest > 1e-30f && finite ? limit / largest : 0.0f;
        for (int c = 0; c < inputs; c += LANES) {
            store_int16(integers + c, load(row + c), scale);
        }
        return finite ? largest / limit : __builtin_nanf("");
    }
#endif

#if FASTHG_HALVES
    // The same with each row rounded to bytes: 0 to 255 stand for its smallest, or zero, to its largest magnitude.
    void multiply_bytes(const float* a, size_t pitch, int rows, const Linear& linear) {
        const int inputs = linear.inputs, padded = (linear.outputs + PANEL - 1) / PANEL * PANEL;
        const float *weight_worth = linear.panels + (size_t)padded * inputs / 4, *weight_sums = weight_worth + padded;
        float worth[MAX_ROWS], zero[MAX_ROWS];
        for (int r = 0; r < rows; r++) {
            round_row(a + r * pitch, inputs, (uint8_t*)(rounded_ + r * rounded_pitch_), worth[r], zero[r]);
        }
        multiply_panels<Int8>(rounded_, rounded_pitch_, rows, linear, inputs / 4);
        for (int r = 0; r < rows; r++) {
            for (float *sum = sums_ + r * sums_pitch_, *end = sum + linear.outputs; sum < end; sum += LANES) {
                const size_t c = sum - (sums_ + r * sums_pitch_);
                store(sum, (from_int32(load(sum)) - zero[r] * load(weight_sums + c)) * (worth[r] * load(weight_worth + c)));
            }
        }
    }

    // A row as bytes, what one of them is worth, and which of them is zero. Where the row is not finite, it is worth NaN.
    static void round_row(const float* row, int inputs, uint8_t* bytes, float& worth, float& zero) {
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
};

}  // namespace FASTHG_ISA
}  // namespace fasthg
