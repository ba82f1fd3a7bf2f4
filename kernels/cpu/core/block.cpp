// The kernels, compiled once for each instruction set: -DFASTHG_ISA names it.

#include "gemm.h"
#include "step.h"
#include "winograd.h"

namespace fasthg {
namespace FASTHG_ISA {

namespace {

struct Yes {
    constexpr operator bool() const { return true; }
};
struct No {
    constexpr operator bool() const { return false; }
};

constexpr int CHUNK = 4;                        // tiles whose rows go through the matrix products together
constexpr int CHUNK_ROWS = CHUNK * TILE_PIXELS;
constexpr int WORTHS = (FREQUENCIES + LANES - 1) / LANES * LANES;  // of one unit of a tile's integers, by frequency

// A tile, cut off at the image's border; its pixels are rows from `first` on.
struct Tile {
    int image, y, x, height, width, first;
    bool whole() const { return height == TILE && width == TILE; }
};

struct Pixel {
    long row, low_row;  // in the grid and in the half grid
    long heatmap;       // of the first joint
};

// Memory for one block; with a null base it only adds up.
class Arena {
   public:
    explicit Arena(float* base) : base_(base) {}
    float* take(size_t floats) {
        float* found = base_ ? base_ + used_ : nullptr;
        used_ += (floats + 15) / 16 * 16;
        return found;
    }
    size_t used() const { return used_; }

   private:
    float* base_;
    size_t used_ = 0;
};

// An odd number of cache lines: neighbours a stride apart fall into different sets of the cache.
size_t spread(size_t floats) {
    const size_t lines = (floats + 15) / 16;
    return 16 * (lines | 1);
}

// One block of a step, in the memory of one thread.
class Block {
   public:
    Block(const Step& step, float* scratch)
        : s(step), arena_(scratch), rows_(step.block * TILE_PIXELS),
          source_pitch_(spread(step.source_channels() + (step.project_residual ? step.residual_channels : 0))),
          x_pitch_(spread(step.out_channels())) {
        tiles_ = (Tile*)arena_.take(sizeof(Tile) * step.block / sizeof(float) + 16);
        pixels_ = (Pixel*)arena_.take(sizeof(Pixel) * rows_ / sizeof(float) + 16);
        const bool all_rows = step.source == Source::winograd;
        source_ = arena_.take(source_pitch_ * (all_rows ? rows_ : CHUNK_ROWS));
        if (step.partials) {
            scales_ = arena_.take((size_t)step.block * 2 * step.channels);
        }
        if (all_rows) {
            v_pitch_ = step.channels + LANES;
            const bool rounded = step.conv.arithmetic == Arithmetic::int12;  // a tile at a time
            v_stride_ = spread(rounded ? step.channels : step.block * v_pitch_);
            m_stride_ = spread(step.block * PANEL);
            v_ = arena_.take(FREQUENCIES * v_stride_);
            if (rounded) {
                worths_ = arena_.take(step.block * WORTHS);
                v16_pitch_ = spread(step.channels / 2);
                v16_ = arena_.take(FREQUENCIES * step.block * v16_pitch_);
            }
            m_ = arena_.take(FREQUENCIES * m_stride_);
        }
        if (step.hidden.panels) {
            hidden_pitch_ = spread(step.hidden.outputs + (step.project_residual ? step.residual_channels : 0));
            hidden_ = arena_.take(hidden_pitch_ * CHUNK_ROWS);
        }
        int byte_inputs = 0, outputs = 0;
        const Linear* linears[] = {&step.hidden, &step.score, &step.expand, &step.next.linear, &step.pool.linear};
        for (const Linear* linear : linears) {
            byte_inputs = larger(byte_inputs, linear->arithmetic == Arithmetic::int8 ? linear->inputs : 0);
            outputs = larger(outputs, linear->outputs);
        }
        byte_pitch_ = spread(byte_inputs / 4);
        bytes_ = arena_.take(byte_pitch_ * MAX_ROWS);
        sums_pitch_ = spread(outputs + PANEL);
        sums_ = arena_.take(sums_pitch_ * MAX_ROWS);
        if (step.expand.panels) {
            x_ = arena_.take(x_pitch_ * CHUNK_ROWS);
        }
        if (step.next.t) {
            entrance_ = arena_.take(x_pitch_ * CHUNK_ROWS);
        }
        if (step.pooled) {
            pooled_ = arena_.take(x_pitch_ * rows_ / 4);
            pooled_rows_ = (long*)arena_.take(rows_ / 4 * sizeof(long) / sizeof(float) + 16);
        }
    }

    size_t scratch_floats() const { return arena_.used(); }

    void run(long block) {
        find_tiles(block);
        find_wanted();
        fetched_ = 0;
        fetch_until_ = smaller(CHUNK, tile_count_) * TILE * wanted_count_;
        if (s.partials) {
            find_scales();
        }
        if (s.source == Source::winograd) {
            convolve();
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
    // Column c of a row that a product reads, as halves where it multiplies those.
    static inline __attribute__((always_inline)) void put(float* row, int c, Vector value, bool half) {
#if FASTHG_HALVES
        if (half) {
            store_bf16((uint16_t*)row + c, value);
            return;
        }
#endif
        (void)half;
        store(row + c, value);
    }

    static bool halves(const Linear& linear) { return linear.arithmetic == Arithmetic::bf16; }
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

    // Scale and shift of the group norm for each image of the block, from partial statistics (Chan, Golub, LeVeque).
    void find_scales() {
        for (int image = tiles_[0].image; image <= tiles_[tile_count_ - 1].image; image++) {
            double count = 0, mean = 0, squares = 0;
            for (int slot = 0; slot < s.slots; slot++) {
                const float* part = s.partials + ((size_t)image * s.slots + slot) * 3;
                const double n = part[0];
                if (n > 0) {
                    const double apart = part[1] - mean, total = count + n;
                    mean += apart * n / total;
                    squares += part[2] + apart * apart * count * n / total;
                    count = total;
                }
            }
            const double inverse = 1 / __builtin_sqrt(squares / count + s.eps);
            float* scale = scales_ + (size_t)(image - tiles_[0].image) * 2 * s.channels;
            for (int c = 0; c < s.channels; c++) {
                scale[c] = (float)(s.norm[c] * inverse);
                scale[s.channels + c] = (float)(s.norm[s.channels + c] - mean * inverse * s.norm[c]);
            }
        }
    }

    const float* scale_of(const Tile& tile) const {
        return s.partials ? scales_ + (size_t)(tile.image - tiles_[0].image) * 2 * s.channels : nullptr;
    }

    // The input's pixel, normalised where it is to be; zeros outside of the image.
    Vector pixel(const Tile& tile, const float* scale, int y, int x, int c) const {
        if (y < 0 || y >= s.grid.height || x < 0 || x >= s.grid.width) {
            return Vector{};
        }
        const Vector value = load(s.input + s.grid.row(tile.image, y, x) * s.channels + c);
        return scale ? relu(value * load(scale + c) + load(scale + s.channels + c)) : value;
    }

    // The 3x3 convolution of all tiles of the block, its inputs' frequencies rounded to integers where they are to be.
    void convolve() {
#if FASTHG_HALVES
        if (s.conv.arithmetic == Arithmetic::int12) {
            for (int t = 0; t < tile_count_; t++) {
                transform(tiles_[t], v_, v_stride_);
                quantise(t);
            }
            multiply_frequencies<Int16>(v16_, v16_pitch_, s.block * v16_pitch_, s.channels / 2);
            return;
        }
#endif
        for (int t = 0; t < tile_count_; t++) {
            transform(tiles_[t], v_ + t * v_pitch_, v_stride_);
        }
        multiply_frequencies<Float>(v_, v_pitch_, v_stride_, s.channels);
    }

    // A tile's frequencies, `stride` apart.
    void transform(const Tile& tile, float* frequencies, size_t stride) {
        const size_t pitch = s.grid.pitch() * s.channels;
        const float* scale = scale_of(tile);
        const float* corner = s.input + (s.grid.row(tile.image, tile.y, tile.x) - s.grid.pitch() - 1) * s.channels;
        for (int c = 0; c < s.channels; c += LANES) {
            float* to = frequencies + c;
            const auto put = [&](int k, Vector value) __attribute__((always_inline)) { store(to + k * stride, value); };
            for (int y = 0; y < 6; y++) {  // the next tile's four new columns
                for (int x = 6; x < 10; x++) {
                    __builtin_prefetch(corner + y * pitch + (size_t)x * s.channels + c);
                }
            }
            if (tile.whole() && !scale) {
                transform_input(
                    [&](int y, int x) __attribute__((always_inline)) {
                        return load(corner + y * pitch + (size_t)x * s.channels + c);
                    },
                    put);
            } else {
                transform_input([&](int y, int x) { return pixel(tile, scale, tile.y + y - 1, tile.x + x - 1, c); }, put);
            }
        }
    }

#if FASTHG_HALVES
    // A tile's frequencies as integers, while they lie in the L1: the largest magnitude of each becomes the largest
    // integer. Where that is not finite, the scale back is NaN, and so is the result.
    void quantise(int t) {
        const float limit = (float)int_limit(s.channels);
        float scales[FREQUENCIES + LANES] = {};
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
            store(scales + k, finite & (peak > 1e-30f) ? limit / peak : Vector{});
            store(worths_ + t * WORTHS + k, finite ? peak * (1 / limit) : Vector{} + __builtin_nanf(""));
        }
        for (int k = 0; k < FREQUENCIES; k++) {
            const float* from = v_ + k * v_stride_;
            int16_t* to = (int16_t*)(v16_ + (k * s.block + t) * v16_pitch_);
            for (int c = 0; c < s.channels; c += LANES) {
                store_int16(to + c, load(from + c), scales[k]);
            }
        }
    }
#endif

    // The products of all frequencies, panel by panel of outputs, and back to pixels.
    template <class Kind>
    inline __attribute__((always_inline)) void multiply_frequencies(const float* v, size_t v_pitch, size_t v_stride,
                                                                    int units) {
        for (int first = 0; first < s.conv.outputs; first += PANEL) {
            const float* panels = s.conv.panels + (size_t)first * FREQUENCIES * units;
            for (int k = 0; k < FREQUENCIES; k++) {
                each_group(tile_count_, [&](int begin, int count) {
                    multiply_group<MAX_ROWS, Kind>(count, v + k * v_stride + begin * v_pitch, v_pitch, panels + (size_t)k * units * PANEL,
                                                   units, fetch_ahead(), m_ + k * m_stride_ + begin * PANEL, PANEL);
                });
            }
            for (int lane = 0; lane < PANEL && first + lane < s.conv.outputs; lane += LANES) {
                const float* m = m_ + lane;
#if FASTHG_HALVES
                if (s.conv.arithmetic == Arithmetic::int12) {
                    const int panel_count = (s.conv.outputs + PANEL - 1) / PANEL;
                    const float* scales = s.conv.panels + (size_t)panel_count * PANEL * FREQUENCIES * units +
                                          (size_t)first * FREQUENCIES + lane;
                    Vector worth[FREQUENCIES];
                    for (int k = 0; k < FREQUENCIES; k++) {
                        worth[k] = load(scales + k * PANEL);
                    }
                    gather_outputs(first + lane, [&](int t, int k) __attribute__((always_inline)) {
                        return from_int32(load(m + k * m_stride_ + t * PANEL)) * (worth[k] * worths_[t * WORTHS + k]);
                    });
                    continue;
                }
#endif
                gather_outputs(first + lane, [&](int t, int k) __attribute__((always_inline)) {
                    return load(m + k * m_stride_ + t * PANEL);
                });
            }
        }
    }

    template <class Load>
    inline __attribute__((always_inline)) void gather_outputs(int column, const Load& load_frequency) {
        const Vector bias = load(s.conv.bias + column), floor = s.conv_relu ? Vector{} : Vector{} - __builtin_inff();
        const auto gather = [&](auto half) __attribute__((always_inline)) {
            for (int t = 0; t < tile_count_; t++) {
                const Tile& tile = tiles_[t];
                float* to = source_ + tile.first * source_pitch_;
                const auto frequency = [&](int k) __attribute__((always_inline)) { return load_frequency(t, k); };
                if (tile.whole()) {
                    transform_output(frequency, [&](int y, int x, Vector value) __attribute__((always_inline)) {
                        put(to + (y * TILE + x) * source_pitch_, column, larger(floor, value + bias), half);
                    });
                } else {
                    transform_output(frequency, [&](int y, int x, Vector value) {
                        if (y < tile.height && x < tile.width) {
                            put(to + (y * tile.width + x) * source_pitch_, column, larger(floor, value + bias), half);
                        }
                    });
                }
            }
        };
        source_halves() ? gather(Yes{}) : gather(No{});
    }

    // The next of what the next chunk reads and writes in memory: a row of a tile, of one buffer.
    inline Ahead fetch_ahead() {
        if (fetched_ >= fetch_until_) {
            return {source_, 0};
        }
        const int buffer = fetched_ % wanted_count_, line = fetched_ / wanted_count_;
        const Tile& tile = tiles_[line / TILE];
        const long row = s.grid.row(tile.image, tile.y + line % TILE, tile.x);
        fetched_++;
        return {wanted_[buffer].from + row * (wanted_[buffer].mask + 1) * 16 / TILE, wanted_[buffer].mask};
    }

    // The buffers that a chunk reads or writes, each with the lines of a tile's row.
    void find_wanted() {
        wanted_count_ = 0;
        const auto want = [this](const float* buffer, int channels) {
            if (buffer) {
                wanted_[wanted_count_++] = {buffer, TILE * channels / 16 - 1};
            }
        };
        want(s.source == Source::rows ? s.input : nullptr, s.channels);
        want(s.residual, s.residual_channels);
        want(s.x, s.out_channels());
        want(s.next.t, s.next.linear.outputs);
    }

    // Rows of one chunk of tiles, from source to outputs.
    void run_chunk(int first, int count) {
        fetch_until_ = smaller(first + 2 * CHUNK, tile_count_) * TILE * wanted_count_;
        fetched_ = fetched_ > (first + count) * TILE * wanted_count_ ? fetched_ : (first + count) * TILE * wanted_count_;
        const Tile& last = tiles_[first + count - 1];
        const int row = tiles_[first].first, rows = last.first + last.height * last.width - row;
        const Pixel* pixels = pixels_ + row;
        float* a = s.source == Source::winograd ? source_ + row * source_pitch_ : source_;
        if (s.source != Source::winograd) {
            for (int t = first; t < first + count; t++) {
                gather(tiles_[t], a + (tiles_[t].first - row) * source_pitch_);
            }
        }
        size_t pitch = source_pitch_;
        if (s.hidden.panels) {
            const bool half = halves(s.expand);
            multiply(a, pitch, rows, s.hidden, [&](int r, const float* sums) {
                for (int c = 0; c < s.hidden.outputs; c += LANES) {
                    put(hidden_ + r * hidden_pitch_, c, relu(load(sums + c) + load(s.hidden.bias + c)), half);
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
            multiply_group<MAX_ROWS, Kind>(rows, a, pitch, linear.panels + (size_t)first * units, units, fetch_ahead(),
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

    void score(const float* a, size_t pitch, int rows, const Pixel* pixels) {
        const size_t plane = (size_t)s.grid.height * s.grid.width;
        multiply(a, pitch, rows, s.score, [&](int r, const float* sums) {
            for (int joint = 0; joint < s.joints; joint++) {
                s.heatmaps[pixels[r].heatmap + joint * plane] = sums[joint] + s.score.bias[joint];
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
        multiply(a, pitch, rows, s.expand, [&](int r, const float* sums) {
            const size_t place = pixels[r].row * channels, low = s.low ? pixels[r].low_row * channels : 0;
            if (residual && s.low) {
                finish(r, sums, place, [&](int c) __attribute__((always_inline)) { return load(residual + place + c) + load(s.low + low + c); });
            } else if (residual) {
                finish(r, sums, place, [&](int c) __attribute__((always_inline)) { return load(residual + place + c); });
            } else if (s.low) {
                finish(r, sums, place, [&](int c) __attribute__((always_inline)) { return load(s.low + low + c); });
            } else {
                finish(r, sums, place, [](int) __attribute__((always_inline)) { return Vector{}; });
            }
        });
    }

    // A row's sums, plus bias and added(column): x, and what its readers start from.
    template <class Added>
    inline __attribute__((always_inline)) void finish(int r, const float* sums, size_t place, const Added& added) {
        const int channels = s.expand.outputs;
        const bool keep = s.pooled || s.tile_statistics, enters = s.next.t, half = halves(s.next.linear);
        const float *bias = s.expand.bias, *scale = s.next.affine, *shift = scale + channels;
        const Vector floor = s.expand_relu ? Vector{} : Vector{} - __builtin_inff();
        float *kept = keep ? x_ + r * x_pitch_ : nullptr, *x = s.x ? s.x + place : nullptr, *entrance = enters ? entrance_ + r * x_pitch_ : nullptr;
        for (int c = 0; c < channels; c += LANES) {
            const Vector value = larger(floor, load(sums + c) + load(bias + c) + added(c));
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

    void gather(const Tile& tile, float* to) const {
        const float* scale = scale_of(tile);
        for (int y = tile.y; y < tile.y + tile.height; y++) {
            for (int x = tile.x; x < tile.x + tile.width; x++, to += source_pitch_) {
                if (s.source == Source::stem) {
                    gather_window(tile.image, 2 * y - 3, 2 * x - 3, to);
                    for (int c = 0; source_halves() && c < STEM_INPUTS; c += LANES) {  // in place: half as long
                        put(to, c, load(to + c), true);
                    }
                } else if (s.source == Source::taps) {
                    for (int tap = 0; tap < 9; tap++) {
                        for (int c = 0; c < s.channels; c += LANES) {
                            put(to, tap * s.channels + c, pixel(tile, scale, y + tap / 3 - 1, x + tap % 3 - 1, c), source_halves());
                        }
                    }
                } else {
                    for (int c = 0; c < s.channels; c += LANES) {
                        put(to, c, pixel(tile, scale, y, x, c), source_halves());
                    }
                }
            }
        }
    }

    // [3, 7, 7] of an image from its pixel (top, left) on, zeros outside; then a zero.
    void gather_window(int image, int top, int left, float* to) const {
        const int from = left < 0 ? -left : 0, until = smaller(STEM_SIDE, s.image_width - left);
        const bool whole = from == 0 && until == STEM_SIDE && top >= 0 && top + STEM_SIDE <= s.image_height;
        for (int c = 0; c < 3; c++) {
            const float* plane = s.input + ((size_t)image * 3 + c) * s.image_height * s.image_width;
            for (int r = 0; r < STEM_SIDE; r++, to += STEM_SIDE) {
                if (whole) {
                    __builtin_memcpy(to, plane + (size_t)(top + r) * s.image_width + left, STEM_SIDE * sizeof(float));
                    continue;
                }
                const bool inside = top + r >= 0 && top + r < s.image_height;
                const float* line = plane + (long)(top + r) * s.image_width + left;
                for (int i = 0; i < STEM_SIDE; i++) {
                    to[i] = inside && i >= from && i < until ? line[i] : 0.0f;
                }
            }
        }
        *to = 0;
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
        multiply(a, x_pitch_, rows, reader.linear, [&](int r, const float* sums) {
            float* t = reader.t + to(r) * outputs;
            for (int c = 0; c < outputs; c += LANES) {
                store(t + c, relu(load(sums + c) + load(reader.linear.bias + c)));
            }
        });
    }

    // Count, mean and squared deviations of a tile, in two passes.
    void measure(const Tile& tile, const float* x, size_t pitch) const {
        const int channels = s.out_channels(), rows = tile.height * tile.width;
        Vector total = {}, squares = {};
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < channels; c += LANES) {
                total += load(x + r * pitch + c);
            }
        }
        const float count = (float)rows * channels, mean = sum(total) / count;
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < channels; c += LANES) {
                const Vector apart = load(x + r * pitch + c) - mean;
                squares += apart * apart;
            }
        }
        const long index = (long)tile.image * s.grid.tiles_an_image() + tile.y / TILE * s.grid.tiles_across() + tile.x / TILE;
        float* to = s.tile_statistics + index * 3;
        to[0] = count;
        to[1] = mean;
        to[2] = sum(squares);
    }

    const Step& s;
    Arena arena_;
    const int rows_;
    const size_t source_pitch_, x_pitch_;
    size_t v_pitch_ = 0, v16_pitch_ = 0, v_stride_ = 0, m_stride_ = 0, hidden_pitch_ = 0, byte_pitch_ = 0, sums_pitch_ = 0;
    int tile_count_ = 0, pooled_count_ = 0, fetched_ = 0, fetch_until_ = 0;
    Ahead wanted_[4];
    int wanted_count_ = 0;
    Tile* tiles_;
    Pixel* pixels_;
    long* pooled_rows_ = nullptr;
    float *source_, *scales_ = nullptr, *v_ = nullptr, *v16_ = nullptr, *worths_ = nullptr, *m_ = nullptr, *hidden_ = nullptr, *x_ = nullptr,
          *entrance_ = nullptr, *pooled_ = nullptr, *bytes_ = nullptr, *sums_ = nullptr;
};

size_t linear_floats(int inputs, int outputs, Arithmetic arithmetic) {
    const size_t padded = (outputs + PANEL - 1) / PANEL * PANEL, floats = inputs * padded;
    switch (arithmetic) {
        case Arithmetic::bf16: return floats / 2;
        case Arithmetic::int8: return floats / 4 + 2 * padded;
        default: return floats;
    }
}

size_t winograd_floats(int inputs, int outputs, Arithmetic arithmetic) {
    const size_t scales = (size_t)FREQUENCIES * ((outputs + PANEL - 1) / PANEL) * PANEL;
    return arithmetic == Arithmetic::fp32 ? inputs * scales : inputs / 2 * scales + scales;
}

void pack(const float* weight, int inputs, int outputs, Arithmetic arithmetic, float* packed) {
    if (arithmetic == Arithmetic::fp32) {
        pack_panels(weight, inputs, outputs, packed);
    } else if (arithmetic == Arithmetic::bf16) {
        pack_panels_bf16(weight, inputs, outputs, (uint16_t*)packed);
    } else {
        pack_panels_int8(weight, inputs, outputs, (int8_t*)packed);
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
#if FASTHG_HALVES
constexpr bool HALVES = true;
#else
constexpr bool HALVES = false;
#endif
const Kernels kernels = {NAME(FASTHG_ISA), HALVES, linear_floats, pack, winograd_floats, pack_conv, scratch_floats, run};

}  // namespace FASTHG_ISA
}  // namespace fasthg
