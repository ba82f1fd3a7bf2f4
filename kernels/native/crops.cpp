#include "crops.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace fasthg {
namespace {

struct Affine {
    double xx, xy, x0, yx, yy, y0;
};

Affine inverse(const double* matrix) {
    const Affine a{matrix[0], matrix[1], matrix[2], matrix[3], matrix[4], matrix[5]};
    const double determinant = a.xx * a.yy - a.xy * a.yx;
    if (!(std::fabs(determinant) > 0) || !std::isfinite(determinant)) {
        throw std::invalid_argument("a map from image to crop has no inverse; give finite maps with a scale above 0");
    }
    Affine b{a.yy / determinant, -a.xy / determinant, 0, -a.yx / determinant, a.xx / determinant, 0};
    b.x0 = -b.xx * a.x0 - b.xy * a.y0;
    b.y0 = -b.yx * a.x0 - b.yy * a.y0;
    return b;
}

struct Image {
    const std::uint8_t* pixels;
    std::ptrdiff_t height, width;

    const std::uint8_t* at(std::ptrdiff_t y, std::ptrdiff_t x) const {
        static constexpr std::uint8_t black[3] = {0, 0, 0};
        return x < 0 || y < 0 || x >= width || y >= height ? black : pixels + 3 * (y * width + x);
    }

    // Bilinear colour [3] at (x, y), in coordinates that have pixel j's centre at j.
    void sample(double x, double y, float* rgb) const {
        const bool near = x > -1 && y > -1 && x < static_cast<double>(width) && y < static_cast<double>(height);
        if (!near) {  // also NaN, which must not reach the conversion to a whole number
            std::fill(rgb, rgb + 3, 0.0F);
            return;
        }
        // Both are above -1, so adding 1 before the cut makes it the floor.
        const auto column = static_cast<std::ptrdiff_t>(x + 1) - 1;
        const auto row = static_cast<std::ptrdiff_t>(y + 1) - 1;
        const auto right = static_cast<float>(x - static_cast<double>(column));
        const auto below = static_cast<float>(y - static_cast<double>(row));
        const std::uint8_t* corners[4] = {at(row, column), at(row, column + 1), at(row + 1, column),
                                          at(row + 1, column + 1)};
        const float weights[4] = {(1 - below) * (1 - right), (1 - below) * right, below * (1 - right), below * right};
        for (int channel = 0; channel < 3; ++channel) {
            rgb[channel] = weights[0] * corners[0][channel] + weights[1] * corners[1][channel] +
                           weights[2] * corners[2][channel] + weights[3] * corners[3][channel];
        }
    }
};

}  // namespace

void crop_warp_normalise(const std::uint8_t* image, std::size_t height, std::size_t width, const double* matrices,
                         std::size_t count, std::size_t size, const float* mean, float* crops) {
    const Image source{image, static_cast<std::ptrdiff_t>(height), static_cast<std::ptrdiff_t>(width)};
    const std::size_t plane = size * size;
    for (std::size_t crop = 0; crop < count; ++crop) {
        const Affine back = inverse(matrices + 6 * crop);
        float* output = crops + 3 * plane * crop;
        for (std::size_t i = 0; i < size; ++i) {
            const double y = static_cast<double>(i) + 0.5;
            for (std::size_t j = 0; j < size; ++j) {
                const double x = static_cast<double>(j) + 0.5;
                float rgb[3];
                source.sample(back.xx * x + back.xy * y + back.x0 - 0.5, back.yx * x + back.yy * y + back.y0 - 0.5, rgb);
                for (std::size_t channel = 0; channel < 3; ++channel) {
                    output[channel * plane + i * size + j] = rgb[channel] / 255.0F - mean[channel];
                }
            }
        }
    }
}

}  // namespace fasthg
