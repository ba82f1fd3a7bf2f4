// Crops out of decoded pictures, as a network takes them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fasthg {

// A decoded picture [height, width, 4], RGBX.
struct Picture {
    const std::uint8_t* pixels;
    std::size_t height;
    std::size_t width;
};

// Crop [3, size, size], or [size, size, 3] with `channels_last`, of `picture` under `to_picture` [2, 3], the map from
// the crop to the picture (pixel j covers [j, j + 1)): bilinear, black outside; then min(value / 255 * gain, 1) - mean
// of each channel, with gain [3] and mean [3].
void cut_crop(const Picture& picture, const double* to_picture, const float* gain, const float* mean, std::size_t size,
              bool channels_last, float* crop);

}  // namespace fasthg
