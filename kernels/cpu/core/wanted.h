// What the next chunk of tiles reads and writes in memory, asked for while products of this one are computed.
#pragma once

#include "gemm.h"
#include "tiles.h"

namespace fasthg {
namespace FASTHG_ISA {

class Wanted {
   public:
    explicit Wanted(const Step& step) : s(step) {
        want(s.source == Source::rows ? s.input : nullptr, s.channels);
        want(s.residual, s.residual_channels);
        want(s.x, s.out_channels());
        want(s.next.t, s.next.linear.outputs);
    }

    void begin(const Tile* tiles, int count) {
        tiles_ = tiles;
        count_ = count;
        asked_ = 0;
        until_ = smaller(CHUNK, count) * TILE * buffers_;
    }

    // The chunk of `count` tiles from `first` on is computed now: what it touches is no longer asked for.
    void advance(int first, int count) {
        until_ = smaller(first + 2 * CHUNK, count_) * TILE * buffers_;
        asked_ = larger(asked_, (first + count) * TILE * buffers_);
    }

    // The next row of a tile, of one buffer.
    Ahead next() {
        if (asked_ >= until_) {
            return {(const float*)tiles_, 0};
        }
        const Buffer& buffer = from_[asked_ % buffers_];
        const int line = asked_ / buffers_;
        const Tile& tile = tiles_[line / TILE];
        const long row = s.grid.row(tile.image, tile.y + line % TILE, tile.x);
        asked_++;
        return {buffer.from + row * buffer.channels, buffer.mask};
    }

   private:
    void want(const float* buffer, int channels) {
        if (buffer) {
            const int lines = TILE * channels / LINE;
            int asked = 1;
            while (2 * asked <= lines) {
                asked *= 2;
            }
            from_[buffers_++] = {buffer, channels, (size_t)(asked - 1) * LINE};
        }
    }

    struct Buffer {
        const float* from;
        int channels;
        size_t mask;  // of a tile's row, or of as many of its lines as are a power of two
    };

    const Step& s;
    Buffer from_[4];
    int buffers_ = 0, count_ = 0, asked_ = 0, until_ = 0;
    const Tile* tiles_ = nullptr;
};

}  // namespace FASTHG_ISA
}  // namespace fasthg
