// Heatmaps to joints and joints to heatmaps, on contiguous arrays.
#pragma once

#include <cstddef>

namespace fasthg {

// heatmaps [count, height, width] -> points [count, 2] (x, y) and scores [count]; see kernels/reference.py.
void decode_heatmaps(const float* heatmaps, std::size_t count, std::size_t height, std::size_t width, float* points,
                     float* scores);

// points [count, 2] and weights [count] -> targets [count, height, width]; see kernels/reference.py.
void render_targets(const float* points, const float* weights, std::size_t count, std::size_t height, std::size_t width,
                    double sigma, float* targets);

}  // namespace fasthg
