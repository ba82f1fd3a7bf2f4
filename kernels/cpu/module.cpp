// Python module fasthg.kernels.cpu._native: checks shapes, lets go of Python's lock and computes in place on the arrays it is given.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

#include "core/bindings.h"
#include "crops.h"
#include "heatmaps.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename T, int Dimensions>
using Input = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
template <typename T, int Dimensions>
using Output = nb::ndarray<T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char* message) {
    if (!condition) {
        throw std::invalid_argument(message);
    }
}

void decode_heatmaps(Input<float, 4> heatmaps, Output<float, 3> points, Output<float, 2> scores) {
    const std::size_t n = heatmaps.shape(0), joints = heatmaps.shape(1);
    require(heatmaps.shape(2) > 0 && heatmaps.shape(3) > 0, "heatmaps are empty; give [N, J, h, w] with h, w > 0");
    require(points.shape(0) == n && points.shape(1) == joints && points.shape(2) == 2, "points must be [N, J, 2]");
    require(scores.shape(0) == n && scores.shape(1) == joints, "scores must be [N, J]");
    nb::gil_scoped_release unlocked;
    fasthg::decode_heatmaps(heatmaps.data(), n * joints, heatmaps.shape(2), heatmaps.shape(3), points.data(),
                            scores.data());
}

void render_targets(Input<float, 3> points, Input<float, 2> weights, double sigma, Output<float, 4> targets) {
    const std::size_t n = targets.shape(0), joints = targets.shape(1);
    require(sigma > 0, "sigma must be above 0");
    require(points.shape(0) == n && points.shape(1) == joints && points.shape(2) == 2, "points must be [N, J, 2]");
    require(weights.shape(0) == n && weights.shape(1) == joints, "weights must be [N, J]");
    nb::gil_scoped_release unlocked;
    fasthg::render_targets(points.data(), weights.data(), n * joints, targets.shape(2), targets.shape(3), sigma,
                           targets.data());
}

void cut_crop(Input<std::uint8_t, 3> picture, Input<double, 2> to_picture, Input<float, 1> gain, Input<float, 1> mean,
              bool channels_last, Output<float, 3> crop) {
    const std::size_t height = picture.shape(0), width = picture.shape(1), size = crop.shape(1);
    require(height > 0 && width > 0 && picture.shape(2) == 4, "picture must be [H, W, 4] with H, W > 0");
    require(height * width <= 1U << 30, "picture has more than 2^30 pixels");
    require(to_picture.shape(0) == 2 && to_picture.shape(1) == 3, "to_picture must be [2, 3]");
    require(gain.shape(0) == 3 && mean.shape(0) == 3, "gain and mean must be [3]");
    require(crop.shape(channels_last ? 2 : 0) == 3 && crop.shape(channels_last ? 0 : 2) == size,
            "crop must be [3, S, S], or [S, S, 3] with channels_last");
    nb::gil_scoped_release unlocked;
    fasthg::cut_crop({picture.data(), height, width}, to_picture.data(), gain.data(), mean.data(), size, channels_last,
                     crop.data());
}

}  // namespace

NB_MODULE(_native, module) {
    module.doc() =
        "Host implementations of the operators in kernels/reference.py, and a loader's crop; the last arguments are "
        "written.";
    // No conversions: a converted copy of an output would be written and thrown away.
    module.def("decode_heatmaps", &decode_heatmaps, "heatmaps"_a.noconvert(), "points"_a.noconvert(),
               "scores"_a.noconvert());
    module.def("render_targets", &render_targets, "points"_a.noconvert(), "weights"_a.noconvert(), "sigma"_a,
               "targets"_a.noconvert());
    module.def("cut_crop", &cut_crop, "picture"_a.noconvert(), "to_picture"_a.noconvert(), "gain"_a.noconvert(),
               "mean"_a.noconvert(), "channels_last"_a, "crop"_a.noconvert());
    bind_core(module);
}
