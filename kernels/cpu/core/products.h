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
        int byte_inputs = 0, outputs = 0;
        const Linear* linears[] = {&step.hidden, &step.score, &step.expand, &step.next.linear, &step.pool.linear};
        for (const Linear* linear : linears) {
            byte_inputs = larger(byte_inputs, linear->arithmetic == Arithmetic::int8 ? linear->inputs : 0);
            outputs = larger(outputs, linear->outputs);
        }
        byte_pitch_ = spread(byte_inputs / 4);
        bytes_ = arena.take(byte_pitch_ * MAX_ROWS);
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
        multiply_panels<Float>(a, pitch, rows, linear, linear.inputs);
    }

    template <class Kind>
    void multiply_panels(const float* a, size_t pitch, int rows, const Linear& linear, int units) {
        for (int first = 0; first < linear.outputs; first += PANEL) {
            multiply_group<MAX_ROWS, Kind>(rows, a, pitch, linear.panels + (size_t)first * units, units, wanted_.next(),
                                           sums_ + first, sums_pitch_);
        }
    }

#if FASTHG_HALVES
    // The same with each row rounded to bytes: 0 to 255 stand for its smallest, or zero, to its largest magnitude.
    void multiply_bytes(const float* a, size_t pitch, int rows, const Linear& linear) {
        const int inputs = linear.inputs, padded = (linear.outputs + PANEL - 1) / PANEL * PANEL;
        const float *weight_worth = linear.panels + (size_t)padded * inputs / 4, *weight_sums = weight_worth + padded;
        float worth[MAX_ROWS], zero[MAX_ROWS];
        for (int r = 0; r < rows; r++) {
            round_row(a + r * pitch, inputs, (uint8_t*)(bytes_ + r * byte_pitch_), worth[r], zero[r]);
        }
        multiply_panels<Int8>(bytes_, byte_pitch_, rows, linear, inputs / 4);
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
    size_t byte_pitch_ = 0, sums_pitch_ = 0;
    float *bytes_ = nullptr, *sums_ = nullptr;
};

}  // namespace FASTHG_ISA
}  // namespace fasthg
