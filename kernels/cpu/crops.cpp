#include "crops.h"

#include <algorithm>
#include <cmath>
#include <vector>

// One binary for every x86 machine: the loader picks the widest vectors that the processor has.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FASTHG_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FASTHG_VECTORISED
#endif

namespace fasthg {
namespace {

constexpr int channels = 3;

// What a row of the crop becomes: plane c goes to out[c].
struct Row {
    float u, v;    // place of the row's first pixel in the picture, from the centre of the picture's first pixel
    float du, dv;  // from a pixel of the row to the next
    float* out[channels];
};

struct Colour {
    float factor[channels];  // gain / 255
    float mean[channels];
};

// Bilinear value of one channel, packed into the byte at `shift` of four neighbours.
inline float blend(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d, int shift, float fu, float fv) {
    // Through int, because vectors of unsigned integers convert to float slowly.
    const auto value = [shift](std::uint32_t pixel) {
        return static_cast<float>(static_cast<int>(pixel >> shift & 255U));
    };
    const float top = value(a) + fu * (value(b) - value(a));
    const float bottom = value(c) + fu * (value(d) - value(c));
    return top + fv * (bottom - top);
}

inline float coloured(float value, const Colour& colour, int channel) {
    const float scaled = value * colour.factor[channel];
    return (scaled < 1.0F ? scaled : 1.0F) - colour.mean[channel];
}

// Pixels [first, last) of a row, all four of whose neighbours lie in the picture.
FASTHG_VECTORISED
void fill_inside(const std::uint32_t* __restrict pixels, int width, const Row& row, int first, int last,
                 const Colour& colour) {
    const Row r = row;
    const Colour k = colour;
    float* __restrict red = r.out[0];
    float* __restrict green = r.out[1];
    float* __restrict blue = r.out[2];
    for (int x = first; x < last; ++x) {
        const float u = r.u + r.du * static_cast<float>(x);
        const float v = r.v + r.dv * static_cast<float>(x);
        const int left = static_cast<int>(u);
        const int top = static_cast<int>(v);
        const float fu = u - static_cast<float>(left);
        const float fv = v - static_cast<float>(top);
        const int at = top * width + left;
        const std::uint32_t a = pixels[at];
        const std::uint32_t b = pixels[at + 1];
        const std::uint32_t c = pixels[at + width];
        const std::uint32_t d = pixels[at + width + 1];
        red[x] = coloured(blend(a, b, c, d, 0, fu, fv), k, 0);
        green[x] = coloured(blend(a, b, c, d, 8, fu, fv), k, 1);
        blue[x] = coloured(blend(a, b, c, d, 16, fu, fv), k, 2);
    }
}

// Pixels [first, last) of a row, whose neighbours may lie outside the picture, where it is black.
void fill_border(const std::uint32_t* pixels, int height, int width, const Row& row, int first, int last,
                 const Colour& colour) {
    for (int x = first; x < last; ++x) {
        const float u = row.u + row.du * static_cast<float>(x);
        const float v = row.v + row.dv * static_cast<float>(x);
        const float left = std::floor(u);
        const float top = std::floor(v);
        const auto pixel = [&](float i, float j) -> std::uint32_t {
            const bool inside = i >= 0 && j >= 0 && i < static_cast<float>(width) && j < static_cast<float>(height);
            return inside ? pixels[static_cast<int>(j) * width + static_cast<int>(i)] : 0U;
        };
        const std::uint32_t a = pixel(left, top);
        const std::uint32_t b = pixel(left + 1, top);
        const std::uint32_t c = pixel(left, top + 1);
        const std::uint32_t d = pixel(left + 1, top + 1);
        for (int channel = 0; channel < channels; ++channel) {
            const float value = blend(a, b, c, d, 8 * channel, u - left, v - top);
            row.out[channel][x] = coloured(value, colour, channel);
        }
    }
}

// Narrows [first, last) to the x for which start + step * x lies well inside [0, end].
void narrow(double start, double step, double end, int& first, int& last) {
    constexpr double margin = 1e-3;  // more than single precision loses at the sides of any picture that fits memory
    const double low = margin - start;
    const double high = end - margin - start;
    if (std::fabs(step) < 1e-12) {
        last = low <= 0 && high >= 0 ? last : first;
        return;
    }
    const double one = low / step;
    const double other = high / step;
    const double stop = last;
    const double from = std::clamp(std::ceil(std::min(one, other)), static_cast<double>(first), stop);
    const double to = std::clamp(std::floor(std::max(one, other)) + 1, from, stop);
    first = static_cast<int>(from);
    last = static_cast<int>(to);
}

}  // namespace

void cut_crop(const Picture& picture, const double* to_picture, const float* gain, const float* mean, std::size_t size,
              bool channels_last, float* crop) {
    const double* m = to_picture;
    const int side = static_cast<int>(size);
    const int height = static_cast<int>(picture.height);
    const int width = static_cast<int>(picture.width);
    const auto* pixels = reinterpret_cast<const std::uint32_t*>(picture.pixels);
    Colour colour;
    for (int channel = 0; channel < channels; ++channel) {
        colour.factor[channel] = gain[channel] / 255.0F;
        colour.mean[channel] = mean[channel];
    }
    std::vector<float> planes(channels_last ? channels * size : 0);  // one row, before its channels are interleaved
    for (int y = 0; y < side; ++y) {
        const double u = m[0] * 0.5 + m[1] * (y + 0.5) + m[2] - 0.5;
        const double v = m[3] * 0.5 + m[4] * (y + 0.5) + m[5] - 0.5;
        Row row{static_cast<float>(u), static_cast<float>(v), static_cast<float>(m[0]), static_cast<float>(m[3]), {}};
        for (std::size_t channel = 0; channel < channels; ++channel) {
            row.out[channel] = channels_last ? planes.data() + channel * size : crop + (channel * size + y) * size;
        }
        int first = 0;
        int last = side;
        narrow(u, m[0], width - 1, first, last);
        narrow(v, m[3], height - 1, first, last);
        fill_border(pixels, height, width, row, 0, first, colour);
        fill_inside(pixels, width, row, first, last, colour);
        fill_border(pixels, height, width, row, last, side, colour);
        if (channels_last) {
            float* out = crop + static_cast<std::size_t>(y) * size * channels;
            for (std::size_t x = 0; x < size; ++x) {
                for (std::size_t channel = 0; channel < channels; ++channel) {
                    out[x * channels + channel] = planes[channel * size + x];
                }
            }
        }
    }
}

}  // namespace fasthg
