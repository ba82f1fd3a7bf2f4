// What the parts of a block share: its tiles and pixels, and the memory that one thread has for it.
#pragma once

#include "step.h"
#include "vector.h"

namespace fasthg {
namespace FASTHG_ISA {

constexpr int CHUNK = 4;  // tiles whose rows go through the matrix products together
constexpr int CHUNK_ROWS = CHUNK * TILE_PIXELS;

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
    template <class Item>
    Item* take_items(size_t count) {
        return (Item*)take((count * sizeof(Item) + sizeof(float) - 1) / sizeof(float));
    }
    size_t used() const { return used_; }

   private:
    float* base_;
    size_t used_ = 0;
};

// An odd number of cache lines: neighbours a stride apart fall into different sets of the cache.
static inline size_t spread(size_t floats) {
    const size_t lines = (floats + 15) / 16;
    return 16 * (lines | 1);
}

static inline bool halves(const Linear& linear) { return linear.arithmetic == Arithmetic::bf16; }

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

// `half` as a constant of its own type, for a loop that is compiled for either.
struct Yes {
    constexpr operator bool() const { return true; }
};
struct No {
    constexpr operator bool() const { return false; }
};

}  // namespace FASTHG_ISA
}  // namespace fasthg
