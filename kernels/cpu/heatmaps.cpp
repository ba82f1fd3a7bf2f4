#include "heatmaps.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace fasthg {
namespace {

// Index of the first largest value; NaN counts as larger than any number, as in torch.argmax.
std::size_t first_largest(const float* values, std::size_t length) {
    // Sixteen independent maxima let the compiler use vector registers, which one running maximum does not.
    constexpr std::size_t lanes = 16;
    float largest[lanes];
    std::fill(largest, largest + lanes, -std::numeric_limits<float>::infinity());
    int nans[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= length; i += lanes) {
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            const float value = values[i + lane];
            largest[lane] = value > largest[lane] ? value : largest[lane];
            nans[lane] |= value != value;
        }
    }
    float best = *std::max_element(largest, largest + lanes);
    bool has_nan = std::any_of(nans, nans + lanes, [](int seen) { return seen != 0; });
    for (; i < length; ++i) {
        best = values[i] > best ? values[i] : best;
        has_nan |= values[i] != values[i];
    }
    const float* end = values + length;
    const float* found = has_nan ? std::find_if(values, end, [](float value) { return value != value; })
                                 : std::find(values, end, best);
    return static_cast<std::size_t>(found - values);
}

// A quarter of a pixel toward the larger neighbour on one axis, whose pixels lie `stride` values apart.
float quarter(const float* peak, std::size_t position, std::size_t length, std::size_t stride) {
    if (position == 0 || position + 1 >= length) {
        return 0.0F;
    }
    const float before = *(peak - stride);
    const float after = *(peak + stride);
    return 0.25F * static_cast<float>((after > before) - (after < before));
}

// Gaussian profile of one axis into values[first .. last); zero beyond three sigma.
struct Profile {
    std::vector<float> values;
    std::size_t first = 0;
    std::size_t last = 0;

    void fill(float centre, std::size_t length, double sigma) {
        const auto cut = static_cast<float>(3 * sigma);
        const auto precision = static_cast<float>(1 / (2 * sigma * sigma));
        values.resize(length);
        first = length;
        last = 0;
        for (std::size_t j = 0; j < length; ++j) {
            const float distance = static_cast<float>(j) + 0.5F - centre;
            if (std::fabs(distance) <= cut) {
                values[j] = std::exp(-distance * distance * precision);
                first = std::min(first, j);
                last = j + 1;
            }
        }
    }
};

}  // namespace

void decode_heatmaps(const float* heatmaps, std::size_t count, std::size_t height, std::size_t width, float* points,
                     float* scores) {
    for (std::size_t map = 0; map < count; ++map) {
        const float* values = heatmaps + map * height * width;
        const std::size_t index = first_largest(values, height * width);
        const std::size_t x = index % width;
        const std::size_t y = index / width;
        points[2 * map] = static_cast<float>(x) + 0.5F + quarter(values + index, x, width, 1);
        points[2 * map + 1] = static_cast<float>(y) + 0.5F + quarter(values + index, y, height, width);
        scores[map] = values[index];
    }
}

void render_targets(const float* points, const float* weights, std::size_t count, std::size_t height, std::size_t width,
                    double sigma, float* targets) {
    std::fill(targets, targets + count * height * width, 0.0F);
    Profile columns;
    Profile rows;
    for (std::size_t map = 0; map < count; ++map) {
        const float x = points[2 * map];
        const float y = points[2 * map + 1];
        const bool inside = x >= 0 && x < static_cast<float>(width) && y >= 0 && y < static_cast<float>(height);
        if (!(weights[map] > 0) || !inside) {
            continue;
        }
        columns.fill(x, width, sigma);
        rows.fill(y, height, sigma);
        for (std::size_t i = rows.first; i < rows.last; ++i) {
            float* row = targets + (map * height + i) * width;
            for (std::size_t j = columns.first; j < columns.last; ++j) {
                row[j] = rows.values[i] * columns.values[j];
            }
        }
    }
}

}  // namespace fasthg
