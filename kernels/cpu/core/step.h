// One step of a network on the CPU: plain data, that every instruction set's kernels read.
//
// A step works on blocks of 4x4-pixel tiles of its grid (the shared-zero-border layout of kernels/layout.py), each on
// its own: rows come from a source, go through up to three matrix products, and the result is stored and made ready for
// its readers, all while the block lies in the core's own cache:
//
//     source -> [hidden, ReLU] -> [score -> heatmaps]
//                              -> [expand] + residual + low -> x -> [store] [affine, ReLU, next, ReLU -> t]
//                                                                -> [2x2 max -> store, affine, ReLU, pool, ReLU -> t]
#pragma once

#include <stddef.h>

namespace fasthg {

constexpr int TILE = 4;                        // pixels, a tile's side
constexpr int TILE_PIXELS = TILE * TILE;       // of a whole tile
constexpr int STEM_SIDE = 7, STEM_INPUTS = 3 * STEM_SIDE * STEM_SIDE + 1;  // and a zero: halves come in pairs
constexpr int MAX_BLOCK = 64;                  // tiles

// Images in the shared-zero-border layout.
struct Grid {
    int batch = 0, height = 0, width = 0;

    long pitch() const { return width + 1; }
    long lead() const { return width + 2; }
    long row(int image, int y, int x) const {
        return lead() + ((long)image * (height + 1) + y) * pitch() + x;
    }
    int tiles_across() const { return (width + TILE - 1) / TILE; }
    int tiles_an_image() const { return (height + TILE - 1) / TILE * tiles_across(); }
    long tiles() const { return (long)batch * tiles_an_image(); }
    Grid half() const { return {batch, height / 2, width / 2}; }
};

// What a product's operands are rounded to; sums and everything else are float32.
enum class Arithmetic {
    fp32,
    bf16,
    int8,  // 8-bit integers, scaled row by row
    int12  // 12-bit integers, scaled row by row, or tile by tile in the Winograd domain: as many bits as a sum has room for
};

// Inputs that a product takes at a time, in one unit of four bytes.
static inline int unit_inputs(Arithmetic arithmetic) {
    switch (arithmetic) {
        case Arithmetic::fp32: return 1;
        case Arithmetic::int8: return 4;
        default: return 2;
    }
}

// y = x @ weight + bias; the weight packed for the kernels that run it. Absent where `panels` is null.
struct Linear {
    Arithmetic arithmetic = Arithmetic::fp32;
    const float* panels = nullptr;
    const float* bias = nullptr;
    int inputs = 0, outputs = 0;

    int units() const { return inputs / unit_inputs(arithmetic); }
};

// A reader of x: t = ReLU(linear(ReLU(x * scale + shift))). Absent where `t` is null.
struct Entrance {
    const float* affine = nullptr;  // [2, C]
    Linear linear;
    float* t = nullptr;
};

enum class Source {
    rows,      // the input's pixels
    winograd,  // its 3x3 convolution
    taps,      // the nine pixels around each, for a direct 3x3 as a matrix product
    stem       // the 7x7 windows of images [N, 3, H, W], every second pixel
};

struct Step {
    Grid grid;
    int block = 1;  // tiles

    Source source = Source::rows;
    const float* input = nullptr;  // a buffer [rows, channels], or images
    int channels = 0;
    int image_height = 0, image_width = 0;

    const float* partials = nullptr;  // statistics [batch, slots, 3] of a group norm of the input, or null
    const float* norm = nullptr;      // [2, channels]
    int slots = 0;
    double eps = 0;

    Linear conv;  // of Source::winograd
    bool conv_relu = true;
    Linear hidden;
    Linear score;
    float* heatmaps = nullptr;  // [batch, joints, height, width]
    int joints = 0;

    Linear expand;
    bool expand_relu = false;
    const float* residual = nullptr;  // a buffer [rows, residual_channels]
    int residual_channels = 0;        // where `project_residual`, more inputs of `expand`; else its outputs
    bool project_residual = false;
    const float* low = nullptr;  // in the half grid

    float* x = nullptr;
    Entrance next;
    float* pooled = nullptr;
    Entrance pool;
    float* tile_statistics = nullptr;  // [tiles, 3]: count, mean and squared deviations of each tile of x

    long blocks() const { return (grid.tiles() + block - 1) / block; }
    // Channels of the rows that come from the source.
    int source_channels() const {
        switch (source) {
            case Source::winograd: return conv.outputs;
            case Source::taps: return 9 * channels;
            case Source::stem: return STEM_INPUTS;
            default: return channels;
        }
    }
    // Channels of x.
    int out_channels() const {
        return expand.panels ? expand.outputs : hidden.panels ? hidden.outputs : source_channels();
    }
};

// The kernels of one instruction set.
struct Kernels {
    const char* name;
    bool integers, halves;  // whether they know int12; bf16 and int8
    // weight [inputs, outputs], in any arithmetic; and [9, inputs, outputs], in fp32 or int12.
    size_t (*linear_floats)(int inputs, int outputs, Arithmetic arithmetic);
    void (*pack_linear)(const float* weight, int inputs, int outputs, Arithmetic arithmetic, float* packed);
    size_t (*winograd_floats)(int inputs, int outputs, Arithmetic arithmetic);
    // `room`: floats for the transformed weight, where it is to be rounded.
    void (*pack_winograd)(const float* weight, int inputs, int outputs, Arithmetic arithmetic, float* packed, float* room);
    size_t (*scratch_floats)(const Step& step);
    void (*run)(const Step& step, long block, float* scratch);

    bool know(Arithmetic arithmetic) const {
        switch (arithmetic) {
            case Arithmetic::fp32: return true;
            case Arithmetic::int12: return integers;
            default: return halves;
        }
    }
};

}  // namespace fasthg
