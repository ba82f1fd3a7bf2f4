// Crops of one photograph as network input.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fasthg {

// image [height, width, 3] and maps image -> crop [count, 2, 3] -> crops [count, 3, size, size]: bilinear with black
// outside the image, divided by 255, less mean [3]. Throws std::invalid_argument for a map that has no inverse.
void crop_warp_normalise(const std::uint8_t* image, std::size_t height, std::size_t width, const double* matrices,
                         std::size_t count, std::size_t size, const float* mean, float* crops);

}  // namespace fasthg
