// The kernels, compiled once for each instruction set: -DFASTHG_ISA names it.

#include "convolution.h"
#include "gemm.h"
#include "input.h"
#include "products.h"
#include "step.h"
#include "tiles.h"
#include "wanted.h"
#include "winograd.h"

namespace fasthg {
namespace FASTHG_ISA {

namespace {

// One block of a step, in the memory of one thread.
class Block {
   public:
    Block(const Step& step, float* scratch)
        : s(step), arena_(scratch), wanted_(step), input_(step, arena_), convolution_(step, arena_, input_, wanted_),
          products_(step, arena_, wanted_), rows_(step.block * TILE_PIXELS),
          source_pitch_(spread(step.source_channels() + (step.project_residual ? step.residual_channels : 0))),
          x_pitch_(spread(step.out_channels())) {
        tiles_ = arena_.take_items<Tile>(step.block);
        pixels_ = arena_.take_items<Pixel>(rows_);
        source_ = arena_.take(source_pitch_ * (convolves() ? rows_ : CHUNK_ROWS));
        if (step.hidden.panels) {
            hidden_pitch_ = spread(step.hidden.outputs + (step.project_residual ? step.residual_channels : 0));
            hidden_ = arena_.take(hidden_pitch_ * CHUNK_ROWS);
        }
        if (step.expand.panels) {
            x_ = arena_.take(x_pitch_ * CHUNK_ROWS);
        }
        if (step.next.t) {
            entrance_ = arena_.take(x_pitch_ * CHUNK_ROWS);
        }
        if (step.pooled) {
            pooled_ = arena_.take(x_pitch_ * rows_ / 4);
            pooled_rows_ = arena_.take_items<long>(rows_ / 4);
        }
    }

    size_t scratch_floats() const { return arena_.used(); }

    void run(long block) {
        find_tiles(block);
        wanted_.begin(tiles_, tile_count_);
        input_.begin(tiles_, tile_count_);
        if (convolves()) {
            convolution_.run(tiles_, tile_count_, source_, source_pitch_, source_halves());
        }
        pooled_count_ = 0;
        for (int first = 0; first < tile_count_; first += CHUNK) {
            run_chunk(first, smaller(CHUNK, tile_count_ - first));
        }
        if (s.pool.t) {
            enter(pooled_, pooled_count_, s.pool, [&](int r) { return pooled_rows_[r]; });
        }
    }

   private:
    bool convolves() const { return s.source == Source::winograd; }
    bool source_halves() const { return halves(s.hidden.panels ? s.hidden : s.expand); }

    void find_tiles(long block) {
        const long first = block * s.block, last = first + s.block;
        const long all = s.grid.tiles();
        const int an_image = s.grid.tiles_an_image(), across = s.grid.tiles_across();
        tile_count_ = (int)((last < all ? last : all) - first);
        int row = 0;
        for (int t = 0; t < tile_count_; t++) {
            const int image = (int)((first + t) / an_image), place = (int)((first + t) % an_image);
            const int y = place / across * TILE, x = place % across * TILE;
            tiles_[t] = {image, y, x, smaller(TILE, s.grid.height - y), smaller(TILE, s.grid.width - x), row};
            for (int r = 0; r < tiles_[t].height; r++) {
                for (int c = 0; c < tiles_[t].width; c++) {
                    const long joint = (long)image * s.joints * s.grid.height + y + r;
                    pixels_[row++] = {s.grid.row(image, y + r, x + c),
                                      s.grid.half().row(image, (y + r) / 2, (x + c) / 2), joint * s.grid.width + x + c};
                }
            }
        }
    }

    // Rows of one chunk of tiles, from source to outputs.
    void run_chunk(int first, int count) {
        wanted_.advance(first, count);
        const Tile& last = tiles_[first + count - 1];
        const int row = tiles_[first].first, rows = last.first + last.height * last.width - row;
        const Pixel* pixels = pixels_ + row;
        float* a = convolves() ? source_ + row * source_pitch_ : source_;
        for (int t = first; t < first + count && !convolves(); t++) {
            input_.gather(tiles_[t], a + (tiles_[t].first - row) * source_pitch_, source_pitch_, source_halves());
        }
        size_t pitch = source_pitch_;
        if (s.hidden.panels) {
            const bool half = halves(s.expand);
            const int outputs = s.hidden.outputs;
            const float* bias = s.hidden.bias;
            products_.multiply(a, pitch, rows, s.hidden, [&](int r, const auto& sum) __attribute__((always_inline)) {
                float* to = hidden_ + r * hidden_pitch_;
                for (int c = 0; c < outputs; c += LANES) {
                    put(to, c, relu(sum(c) + load(bias + c)), half);
                }
            });
            a = hidden_;
            pitch = hidden_pitch_;
        }
        if (s.score.panels) {
            score(a, pitch, rows, pixels);
        }
        if (s.expand.panels) {
            expand(a, pitch, rows, pixels);
            a = x_;
            pitch = x_pitch_;
        } else {
            pass_on(a, pitch, rows, pixels);
        }
        if (s.next.t) {
            enter(entrance_, rows, s.next, [&](int r) { return pixels[r].row; });
        }
        for (int t = first; t < first + count; t++) {
            const float* x = a + (tiles_[t].first - row) * pitch;
            if (s.pooled) {
                max_pool(tiles_[t], x, pitch);
            }
            if (s.tile_statistics) {
                measure(tiles_[t], x, pitch);
            }
        }
    }

    void score(const float* a, size_t pitch, int rows, const Pixel* pixels) {
        const size_t plane = (size_t)s.grid.height * s.grid.width;
        products_.multiply(a, pitch, rows, s.score, [&](int r, const auto& sum) __attribute__((always_inline)) {
            for (int first = 0; first < s.joints; first += LANES) {
                const Vector sums = sum(first);
                for (int joint = first; joint < smaller(first + LANES, s.joints); joint++) {
                    s.heatmaps[pixels[r].heatmap + joint * plane] = sums[joint - first] + s.score.bias[joint];
                }
            }
        });
    }

    void expand(float* a, size_t pitch, int rows, const Pixel* pixels) {
        const int channels = s.expand.outputs;
        if (s.project_residual) {
            for (int r = 0; r < rows; r++) {
                const int first = s.expand.inputs - s.residual_channels;
                for (int c = 0; c < s.residual_channels; c += LANES) {
                    put(a + r * pitch, first + c, load(s.residual + pixels[r].row * s.residual_channels + c), halves(s.expand));
                }
            }
        }
        const float* residual = s.project_residual ? nullptr : s.residual;
        products_.multiply(a, pitch, rows, s.expand, [&](int r, const auto& sum) __attribute__((always_inline)) {
            const size_t place = pixels[r].row * channels, low = s.low ? pixels[r].low_row * channels : 0;
            if (residual && s.low) {
                finish(r, sum, place, [&](int c) __attribute__((always_inline)) { return load(residual + place + c) + load(s.low + low + c); });
            } else if (residual) {
                finish(r, sum, place, [&](int c) __attribute__((always_inline)) { return load(residual + place + c); });
            } else if (s.low) {
                finish(r, sum, place, [&](int c) __attribute__((always_inline)) { return load(s.low + low + c); });
            } else {
                finish(r, sum, place, [](int) __attribute__((always_inline)) { return Vector{}; });
            }
        });
    }

    // A row's sums, plus bias and added(column): x, and what its readers start from.
    template <class Sum, class Added>
    inline __attribute__((always_inline)) void finish(int r, const Sum& sum, size_t place, const Added& added) {
        const int channels = s.expand.outputs;
        const bool keep = s.pooled || s.tile_statistics, enters = s.next.t, half = halves(s.next.linear);
        const float *bias = s.expand.bias, *scale = s.next.affine, *shift = scale + channels;
        const Vector floor = s.expand_relu ? Vector{} : Vector{} - __builtin_inff();
        float *kept = keep ? x_ + r * x_pitch_ : nullptr, *x = s.x ? s.x + place : nullptr, *entrance = enters ? entrance_ + r * x_pitch_ : nullptr;
        for (int c = 0; c < channels; c += LANES) {
            const Vector value = larger(floor, sum(c) + load(bias + c) + added(c));
            if (x) {
                store(x + c, value);
            }
            if (kept) {
                store(kept + c, value);
            }
            if (enters) {
                put(entrance, c, relu(value * load(scale + c) + load(shift + c)), half);
            }
        }
    }

    // x is the source's rows themselves.
    void pass_on(const float* a, size_t pitch, int rows, const Pixel* pixels) {
        const int channels = s.out_channels();
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < channels; c += LANES) {
                const Vector value = load(a + r * pitch + c);
                if (s.x) {
                    store(s.x + pixels[r].row * channels + c, value);
                }
                if (s.next.t) {
                    put(entrance_ + r * x_pitch_, c, relu(value * load(s.next.affine + c) + load(s.next.affine + channels + c)), halves(s.next.linear));
                }
            }
        }
    }

    void max_pool(const Tile& tile, const float* x, size_t pitch) {
        const int channels = s.out_channels();
        for (int y = 0; y + 1 < tile.height; y += 2) {
            for (int c2 = 0; c2 + 1 < tile.width; c2 += 2) {
                const float* window = x + (y * tile.width + c2) * pitch;
                const long row = s.grid.half().row(tile.image, (tile.y + y) / 2, (tile.x + c2) / 2);
                float* kept = pooled_ + pooled_count_ * x_pitch_;
                for (int c = 0; c < channels; c += LANES) {
                    const float* below = window + tile.width * pitch;
                    const Vector value = larger(larger(load(window + c), load(window + pitch + c)),
                                                larger(load(below + c), load(below + pitch + c)));
                    store(s.pooled + row * channels + c, value);
                    if (s.pool.t) {
                        put(kept, c, relu(value * load(s.pool.affine + c) + load(s.pool.affine + channels + c)), halves(s.pool.linear));
                    }
                }
                pooled_rows_[pooled_count_++] = row;
            }
        }
    }

    // What a reader starts from, of rows that lie in its pixels to(row).
    template <class To>
    inline __attribute__((always_inline)) void enter(const float* a, int rows, const Entrance& reader, const To& to) {
        const int outputs = reader.linear.outputs;
        products_.multiply(a, x_pitch_, rows, reader.linear, [&](int r, const auto& sum) __attribute__((always_inline)) {
            float* t = reader.t + to(r) * outputs;
            for (int c = 0; c < outputs; c += LANES) {
                store(t + c, relu(sum(c) + load(reader.linear.bias + c)));
            }
        });
    }

    // Count, mean and squared deviations of a tile, in two passes.
    void measure(const Tile& tile, const float* x, size_t pitch) const {
        const int rows = tile.height * tile.width;
        const float count = (float)rows * s.out_channels();
        const float mean = add_up(x, pitch, rows, [](Vector value) __attribute__((always_inline)) { return value; }) / count;
        const float squares = add_up(x, pitch, rows, [&](Vector value) __attribute__((always_inline)) {
            return (value - mean) * (value - mean);
        });
        const long index = (long)tile.image * s.grid.tiles_an_image() + tile.y / TILE * s.grid.tiles_across() + tile.x / TILE;
        float* to = s.tile_statistics + index * 3;
        to[0] = count;
        to[1] = mean;
        to[2] = squares;
    }

    // The sum of term(x) over rows; four sums side by side, since each addition waits for the one before.
    template <class Term>
    inline __attribute__((always_inline)) float add_up(const float* x, size_t pitch, int rows, const Term& term) const {
        const int channels = s.out_channels();
        Vector totals[4] = {};
        int r = 0;
        for (; r + 4 <= rows; r += 4) {
            for (int c = 0; c < channels; c += LANES) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    totals[i] += term(load(x + (r + i) * pitch + c));
                }
            }
        }
        for (; r < rows; r++) {
            for (int c = 0; c < channels; c += LANES) {
                totals[0] += term(load(x + r * pitch + c));
            }
        }
        return sum((totals[0] + totals[1]) + (totals[2] + totals[3]));
    }

    const Step& s;
    Arena arena_;
    Wanted wanted_;
    Input input_;
    Convolution convolution_;
    Products products_;
    const int rows_;
    const size_t source_pitch_, x_pitch_;
    size_t hidden_pitch_ = 0;
    int tile_count_ = 0, pooled_count_ = 0;
    Tile* tiles_;
    Pixel* pixels_;
    long* pooled_rows_ = nullptr;
    float *source_, *hidden_ = nullptr, *x_ = nullptr, *entrance_ = nullptr, *pooled_ = nullptr;
};

size_t linear_floats(int inputs, int outputs, Arithmetic arithmetic) {
    const size_t padded = (outputs + PANEL - 1) / PANEL * PANEL, floats = inputs * padded;
    switch (arithmetic) {
        case Arithmetic::bf16: return floats / 2;
        case Arithmetic::int8: return floats / 4 + 2 * padded;
        case Arithmetic::int12: return floats / 2 + padded;
        default: return floats;
    }
}

size_t winograd_floats(int inputs, int outputs, Arithmetic arithmetic) {
    const size_t scales = (size_t)FREQUENCIES * ((outputs + PANEL - 1) / PANEL) * PANEL;
    return arithmetic == Arithmetic::fp32 ? inputs * scales : inputs / 2 * scales + scales;
}

void pack(const float* weight, int inputs, int outputs, Arithmetic arithmetic, float* packed) {
    switch (arithmetic) {
        case Arithmetic::fp32: return pack_panels(weight, inputs, outputs, packed);
        case Arithmetic::bf16: return pack_panels_bf16(weight, inputs, outputs, (uint16_t*)packed);
        case Arithmetic::int8: return pack_panels_int8(weight, inputs, outputs, (int8_t*)packed);
        case Arithmetic::int12: return pack_panels_int12(weight, inputs, outputs, (int16_t*)packed);
    }
}

void pack_conv(const float* weight, int inputs, int outputs, Arithmetic arithmetic, float* packed, float* room) {
    if (arithmetic == Arithmetic::fp32) {
        pack_winograd(weight, inputs, outputs, packed);
    } else {
        pack_winograd(weight, inputs, outputs, room);
        quantise_winograd(room, inputs, outputs, (int16_t*)packed);
    }
}

size_t scratch_floats(const Step& step) { return Block(step, nullptr).scratch_floats(); }

void run(const Step& step, long block, float* scratch) { Block(step, scratch).run(block); }

#define TEXT(name) #name
#define NAME(isa) TEXT(isa)

}  // namespace

extern const Kernels kernels;
#if FASTHG_INTEGERS
constexpr bool INTEGERS = true;
#else
constexpr bool INTEGERS = false;
#endif
#if FASTHG_HALVES
constexpr bool HALVES = true;
#else
constexpr bool HALVES = false;
#endif
const Kernels kernels = {NAME(FASTHG_ISA), INTEGERS, HALVES, linear_floats, pack, winograd_floats, pack_conv, scratch_floats, run};

}  // namespace FASTHG_ISA
}  // namespace fasthg
