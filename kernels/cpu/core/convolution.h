// The 3x3 convolution of a block's tiles by Winograd's algorithm: input -> frequencies -> products -> rows of pixels.
#pragma once

#include "gemm.h"
#include "input.h"
#include "tiles.h"
#include "wanted.h"
#include "winograd.h"

namespace fasthg {
namespace FASTHG_ISA {

constexpr int WORTHS = (FREQUENCIES + LANES - 1) / LANES * LANES;  // of one unit of a tile's integers, by frequency

class Convolution {
   public:
    Convolution(const Step& step, Arena& arena, const Input& input, Wanted& wanted) : s(step), input_(input), wanted_(wanted) {
        if (step.source != Source::winograd) {
            return;
        }
        const bool rounded = step.conv.arithmetic == Arithmetic::int12;  // a tile at a time
        v_pitch_ = step.channels + LANES;
        v_stride_ = spread(rounded ? step.channels : step.block * v_pitch_);
        m_stride_ = spread(step.block * PANEL);
        v_ = arena.take(FREQUENCIES * v_stride_);
        if (rounded) {
            worths_ = arena.take(step.block * WORTHS);
            v16_pitch_ = spread(step.channels / 2);
            v16_ = arena.take(FREQUENCIES * step.block * v16_pitch_);
        }
        m_ = arena.take(FREQUENCIES * m_stride_);
    }

    // All pixels of the tiles, `pitch` apart.
    void run(const Tile* tiles, int count, float* rows, size_t pitch, bool half) {
        tiles_ = tiles;
        count_ = count;
#if FASTHG_INTEGERS
        if (s.conv.arithmetic == Arithmetic::int12) {
            for (int t = 0; t < count_; t++) {
                transform(tiles_[t], v_, v_stride_);
                quantise(t);
            }
            multiply<Int16>(v16_, v16_pitch_, s.block * v16_pitch_, s.channels / 2, rows, pitch, half);
            return;
        }
#endif
        for (int t = 0; t < count_; t++) {
            transform(tiles_[t], v_ + t * v_pitch_, v_stride_);
        }
        multiply<Float>(v_, v_pitch_, v_stride_, s.channels, rows, pitch, half);
    }

   private:
    // A tile's frequencies, `stride` apart.
    void transform(const Tile& tile, float* frequencies, size_t stride) {
        const size_t pitch = s.grid.pitch() * s.channels;
        const float* scale = input_.scale_of(tile);
        const float* corner = s.input + (s.grid.row(tile.image, tile.y, tile.x) - s.grid.pitch() - 1) * s.channels;
        for (int c = 0; c < s.channels; c += LANES) {
            float* to = frequencies + c;
            const auto put = [&](int k, Vector value) __attribute__((always_inline)) { store(to + k * stride, value); };
            for (int y = 0; y < 6; y++) {  // the next tile's four new columns
                for (int x = 6; x < 10; x++) {
                    __builtin_prefetch(corner + y * pitch + (size_t)x * s.channels + c);
                }
            }
            const auto read = [&](int y, int x) __attribute__((always_inline)) {
                return load(corner + y * pitch + (size_t)x * s.channels + c);
            };
            if (tile.whole() && !scale) {  // beside the image lie zeros
                transform_input(read, put);
            } else if (scale && input_.within(tile)) {
                transform_input([&](int y, int x)
                                    __attribute__((always_inline)) { return input_.normalised(read(y, x), scale, c); },
                                put);
            } else {
                transform_input(
                    [&](int y, int x) { return input_.pixel(tile, scale, tile.y + y - 1, tile.x + x - 1, c); }, put);
            }
        }
    }

#if FASTHG_INTEGERS
    // A tile's frequencies as integers, while they lie in the L1: the largest magnitude of each becomes the largest
    // integer. Where that is not finite, the scale back is NaN, and so is the result.
    void quantise(int t) {
        const float limit = (float)int_limit(s.channels);
        float scales[WORTHS] = {};
        for (int k = 0; k < FREQUENCIES; k++) {
            Vector magnitude = {};
            for (int c = 0; c < s.channels; c += LANES) {
                magnitude = larger_magnitude(magnitude, load(v_ + k * v_stride_ + c));
            }
            scales[k] = largest_magnitude(magnitude);
        }
        for (int k = 0; k < FREQUENCIES; k += LANES) {
            const Vector peak = load(scales + k);
            const auto finite = peak <= 3.402823466e38f;
            store(scales + k, (finite & (peak > 1e-30f)) ? limit / peak : Vector{});
            store(worths_ + t * WORTHS + k, finite ? peak * (1 / limit) : Vector{} + __builtin_nanf(""));
        }
        for (int k = 0; k < FREQUENCIES; k++) {
            const float* from = v_ + k * v_stride_;
            int16_t* to = (int16_t*)(v16_ + (k * s.block + t) * v16_pitch_);
            for (int c = 0; c < s.channels; c += 16) {
                store_int16(to + c, from + c, scales[k]);
            }
        }
    }
#endif

    // The products of all frequencies, panel by panel of outputs, and back to pixels.
    template <class Kind>
    inline __attribute__((always_inline)) void multiply(const float* v, size_t v_pitch, size_t v_stride, int units,
                                                        float* rows, size_t pitch, bool half) {
        for (int first = 0; first < s.conv.outputs; first += PANEL) {
            const float* panels = s.conv.panels + (size_t)first * FREQUENCIES * units;
            for (int k = 0; k < FREQUENCIES; k++) {
                each_group(count_, [&](int begin, int count) {
                    multiply_group<MAX_ROWS, Kind>(count, v + k * v_stride + begin * v_pitch, v_pitch,
                                                   panels + (size_t)k * units * PANEL, units, wanted_.next(),
                                                   m_ + k * m_stride_ + begin * PANEL, PANEL);
                });
            }
            for (int lane = 0; lane < PANEL && first + lane < s.conv.outputs; lane += LANES) {
                const float* m = m_ + lane;
                const auto back = [&](const auto& frequency) __attribute__((always_inline)) {
                    half ? to_pixels(first + lane, frequency, rows, pitch, Yes{})
                         : to_pixels(first + lane, frequency, rows, pitch, No{});
                };
#if FASTHG_INTEGERS
                if (s.conv.arithmetic == Arithmetic::int12) {
                    const int panel_count = (s.conv.outputs + PANEL - 1) / PANEL;
                    const float* scales = s.conv.panels + (size_t)panel_count * PANEL * FREQUENCIES * units +
                                          (size_t)first * FREQUENCIES + lane;
                    Vector worth[FREQUENCIES];
                    for (int k = 0; k < FREQUENCIES; k++) {
                        worth[k] = load(scales + k * PANEL);
                    }
                    back([&](int t, int k) __attribute__((always_inline)) {
                        return from_int32(load(m + k * m_stride_ + t * PANEL)) * (worth[k] * worths_[t * WORTHS + k]);
                    });
                    continue;
                }
#endif
                back([&](int t, int k) __attribute__((always_inline)) { return load(m + k * m_stride_ + t * PANEL); });
            }
        }
    }

    template <class Load, class Half>
    inline __attribute__((always_inline)) void to_pixels(int column, const Load& load_frequency, float* rows, size_t pitch,
                                                         Half half) {
        const Vector bias = load(s.conv.bias + column), floor = s.conv_relu ? Vector{} : Vector{} - __builtin_inff();
        for (int t = 0; t < count_; t++) {
            const Tile& tile = tiles_[t];
            float* to = rows + tile.first * pitch;
            const auto frequency = [&](int k) __attribute__((always_inline)) { return load_frequency(t, k); };
            if (tile.whole()) {
                transform_output(frequency, [&](int y, int x, Vector value) __attribute__((always_inline)) {
                    put(to + (y * TILE + x) * pitch, column, larger(floor, value + bias), half);
                });
            } else {
                transform_output(frequency, [&](int y, int x, Vector value) {
                    if (y < tile.height && x < tile.width) {
                        put(to + (y * tile.width + x) * pitch, column, larger(floor, value + bias), half);
                    }
                });
            }
        }
    }

    const Step& s;
    const Input& input_;
    Wanted& wanted_;
    const Tile* tiles_ = nullptr;
    int count_ = 0;
    size_t v_pitch_ = 0, v_stride_ = 0, v16_pitch_ = 0, m_stride_ = 0;
    float *v_ = nullptr, *v16_ = nullptr, *worths_ = nullptr, *m_ = nullptr;
};

}  // namespace FASTHG_ISA
}  // namespace fasthg
