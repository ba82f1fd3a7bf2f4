// A step's input: pixels of a buffer, normalised where they are to be, or windows of images, as rows for a product.
#pragma once

#include "tiles.h"

namespace fasthg {
namespace FASTHG_ISA {

class Input {
   public:
    Input(const Step& step, Arena& arena) : s(step) {
        if (step.partials) {
            scales_ = arena.take((size_t)step.block * 2 * step.channels);
        }
    }

    // Before anything is read of these tiles.
    void begin(const Tile* tiles, int count) {
        first_image_ = tiles[0].image;
        for (int image = first_image_; s.partials && image <= tiles[count - 1].image; image++) {
            find_scale(image, scales_ + (size_t)(image - first_image_) * 2 * s.channels);
        }
    }

    // Scale and shift [2, channels] of a tile's image; null where the input is taken as it is.
    const float* scale_of(const Tile& tile) const {
        return s.partials ? scales_ + (size_t)(tile.image - first_image_) * 2 * s.channels : nullptr;
    }

    // Sixteen channels of a pixel; zeros outside of the image.
    Vector pixel(const Tile& tile, const float* scale, int y, int x, int c) const {
        if (y < 0 || y >= s.grid.height || x < 0 || x >= s.grid.width) {
            return Vector{};
        }
        const Vector value = load(s.input + s.grid.row(tile.image, y, x) * s.channels + c);
        return scale ? normalised(value, scale, c) : value;
    }

    // Channels of a pixel from `c` on, by a tile's scale and shift, and their ReLU.
    Vector normalised(Vector value, const float* scale, int c) const {
        return relu(value * load(scale + c) + load(scale + s.channels + c));
    }

    // Whether the tile is whole, and with it the pixel on each side of it lies in the image.
    bool within(const Tile& tile) const {
        return tile.y > 0 && tile.y + TILE < s.grid.height && tile.x > 0 && tile.x + TILE < s.grid.width;
    }

    // A tile's rows, `pitch` apart.
    void gather(const Tile& tile, float* to, size_t pitch, bool half) const {
        const float* scale = scale_of(tile);
        for (int y = tile.y; y < tile.y + tile.height; y++) {
            const float* from = s.input + s.grid.row(tile.image, y, tile.x) * s.channels;  // unless these are images
            for (int x = tile.x; x < tile.x + tile.width; x++, to += pitch, from += s.channels) {
                if (s.source == Source::stem) {
                    gather_window(tile.image, 2 * y - 3, 2 * x - 3, to);
                    for (int c = 0; half && c < STEM_INPUTS; c += LANES) {  // in place: half as long
                        put(to, c, load(to + c), true);
                    }
                } else if (s.source == Source::taps) {
                    for (int tap = 0; tap < 9; tap++) {
                        for (int c = 0; c < s.channels; c += LANES) {
                            put(to, tap * s.channels + c, pixel(tile, scale, y + tap / 3 - 1, x + tap % 3 - 1, c), half);
                        }
                    }
                } else if (scale) {
                    for (int c = 0; c < s.channels; c += LANES) {
                        put(to, c, normalised(load(from + c), scale, c), half);
                    }
                } else {
                    for (int c = 0; c < s.channels; c += LANES) {
                        put(to, c, load(from + c), half);
                    }
                }
            }
        }
    }

   private:
    // The group norm of an image, from partial statistics (Chan, Golub, LeVeque).
    void find_scale(int image, float* scale) const {
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
        for (int c = 0; c < s.channels; c++) {
            scale[c] = (float)(s.norm[c] * inverse);
            scale[s.channels + c] = (float)(s.norm[s.channels + c] - mean * inverse * s.norm[c]);
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

    const Step& s;
    float* scales_ = nullptr;
    int first_image_ = 0;
};

}  // namespace FASTHG_ISA
}  // namespace fasthg
