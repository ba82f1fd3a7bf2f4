#include "bindings.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "program.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace fasthg;

namespace {

using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Weight = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Statistics = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Images = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using OutMatrix = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutStatistics = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using OutImages = nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const std::string& message) {
    if (!condition) {
        throw std::invalid_argument(message);
    }
}

// Kernels by name, or the best; $FASTHG_CPU_ISA forces one.
const Kernels& find_kernels(std::string name) {
    const char* forced = std::getenv("FASTHG_CPU_ISA");
    if (name.empty() && forced) {
        name = forced;
    }
    std::string names;
    for (const Kernels* kernels : available_kernels()) {
        if (name.empty() || name == kernels->name) {
            return *kernels;
        }
        names += (names.empty() ? "" : ", ") + std::string(kernels->name);
    }
    throw std::invalid_argument("FASTHG_CPU_ISA is '" + name + "'; this machine has " + names);
}

const std::vector<std::pair<std::string, Arithmetic>> ARITHMETICS = {
    {"fp32", Arithmetic::fp32}, {"bf16", Arithmetic::bf16}, {"int12", Arithmetic::int12}, {"int8", Arithmetic::int8}};

// How a weight is rounded: a 3x3 in fp32 or int12, a 1x1 in any.
Arithmetic arithmetic_of(const std::string& name, bool conv) {
    for (const auto& [known, arithmetic] : ARITHMETICS) {
        if (name == known && (!conv || arithmetic == Arithmetic::fp32 || arithmetic == Arithmetic::int12)) {
            return arithmetic;
        }
    }
    throw std::invalid_argument("a [in, out] is packed in fp32, bf16, int12 or int8, a [9, in, out] in fp32 or int12");
}

template <class Array>
auto buffer(const Array& x, const Grid& grid, int channels) {
    require(int(x.shape(1)) == channels && channels % 16 == 0, "a buffer has " + std::to_string(x.shape(1)) +
                                                                   " channels where " + std::to_string(channels) +
                                                                   " fit");
    require(long(x.shape(0)) >= grid.row(grid.batch, 0, 0) + grid.lead(), "a buffer is too short for its grid");
    return x.data();
}

const float* affine_of(const Matrix& affine, int channels) {
    require(affine.shape(0) == 2 && int(affine.shape(1)) == channels, "an affine does not fit the channels");
    return affine.data();
}

// A step as Python describes it, call by call; every array is checked against the grid and the channels.
class Builder {
   public:
    Builder(int batch, int height, int width) {
        require(batch > 0 && height > 0 && width > 0, "a step's grid is empty");
        step.grid = {batch, height, width};
    }

    void rows(const Matrix& x) { read(Source::rows, x); }
    void taps(const Matrix& t) { read(Source::taps, t); }
    void winograd(const Matrix& t, const Packed& weight, const Vector& bias, bool relu) {
        read(Source::winograd, t);
        step.conv = linear(weight, bias, step.channels);
        step.conv_relu = relu;
    }
    void stem(const Images& images) {
        const int height = int(images.shape(2)), width = int(images.shape(3));
        require(int(images.shape(0)) == step.grid.batch && images.shape(1) == 3 && (height + 1) / 2 == step.grid.height &&
                    (width + 1) / 2 == step.grid.width,
                "images do not fit the stem's grid");
        step.source = Source::stem;
        step.input = images.data();
        step.image_height = height;
        step.image_width = width;
    }
    void normalise(const Statistics& partials, const Matrix& affine, double eps) {
        require(int(partials.shape(0)) == step.grid.batch && partials.shape(2) == 3, "partials do not fit the grid");
        step.partials = partials.data();
        step.slots = int(partials.shape(1));
        step.norm = affine_of(affine, step.channels);
        step.eps = eps;
    }
    void hidden(const Packed& weight, const Vector& bias) { step.hidden = linear(weight, bias, step.source_channels()); }
    void score(const Packed& weight, const Vector& bias, const OutImages& heatmaps) {
        step.score = linear(weight, bias, step.out_channels());
        require(step.score.arithmetic == Arithmetic::fp32, "scores are computed in fp32");
        step.joints = int(heatmaps.shape(1));
        require(int(heatmaps.shape(0)) == step.grid.batch && step.joints <= step.score.outputs &&
                    int(heatmaps.shape(2)) == step.grid.height && int(heatmaps.shape(3)) == step.grid.width,
                "heatmaps do not fit the grid");
        step.heatmaps = heatmaps.data();
    }
    void expand(const Packed& weight, const Vector& bias, bool relu) {
        step.expand = linear(weight, bias, step.out_channels() + (step.project_residual ? step.residual_channels : 0));
        step.expand_relu = relu;
    }
    // Before `expand` where it is projected, the last of its inputs.
    void residual(const Matrix& x, bool projected) {
        step.residual = buffer(x, step.grid, int(x.shape(1)));
        step.residual_channels = int(x.shape(1));
        step.project_residual = projected;
    }
    void low(const Matrix& x) { step.low = buffer(x, step.grid.half(), step.out_channels()); }
    void out(const OutMatrix& x) { step.x = buffer(x, step.grid, step.out_channels()); }
    void next(const Matrix& affine, const Packed& weight, const Vector& bias, const OutMatrix& t) {
        step.next = entrance(affine, weight, bias, t, step.grid);
    }
    void max_pool(const OutMatrix& x) { step.pooled = buffer(x, step.grid.half(), step.out_channels()); }
    void pool(const Matrix& affine, const Packed& weight, const Vector& bias, const OutMatrix& t) {
        step.pool = entrance(affine, weight, bias, t, step.grid.half());
    }
    void statistics(const OutStatistics& of) {
        require(int(of.shape(0)) == step.grid.batch && of.shape(1) > 0 && of.shape(2) == 3, "partials do not fit the grid");
        partials = of.data();
        slots = int(of.shape(1));
    }

    Step step;
    const Kernels* kernels = nullptr;  // that the weights are packed for
    float* partials = nullptr;
    int slots = 0;

   private:
    Linear linear(const Packed& weight, const Vector& bias, int inputs) {
        require(!kernels || kernels == &weight.kernels(), "a step's weights are packed for two instruction sets");
        kernels = &weight.kernels();
        const Linear made = weight.with_bias(bias.data());
        require(made.inputs == inputs && int(bias.shape(0)) == made.outputs,
                "a weight has " + std::to_string(made.inputs) + " inputs where " + std::to_string(inputs) + " fit");
        return made;
    }

    void read(Source source, const Matrix& x) {
        step.source = source;
        step.channels = int(x.shape(1));
        step.input = buffer(x, step.grid, step.channels);
    }

    Entrance entrance(const Matrix& affine, const Packed& weight, const Vector& bias, const OutMatrix& t,
                      const Grid& grid) {
        const Linear made = linear(weight, bias, step.out_channels());
        return {affine_of(affine, made.inputs), made, buffer(t, grid, made.outputs)};
    }
};

}  // namespace

void bind_core(nb::module_& module) {
    module.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const Kernels* kernels : available_kernels()) {
            names.emplace_back(kernels->name);
        }
        return names;
    });
    module.def("arithmetics", [] {
        std::vector<std::string> names;
        for (const auto& [name, arithmetic] : ARITHMETICS) {
            if (find_kernels("").know(arithmetic)) {
                names.push_back(name);
            }
        }
        return names;
    });

    nb::class_<Packed>(module, "Packed")
        .def("__init__",
             [](Packed* self, const Weight& weight, const std::string& arithmetic, const std::string& isa) {
                 require(weight.ndim() == 2 || (weight.ndim() == 3 && weight.shape(0) == 9), "a weight is [in, out] or [9, in, out]");
                 const bool conv = weight.ndim() == 3;
                 const Kernels& kernels = find_kernels(isa);
                 const Arithmetic kind = arithmetic_of(arithmetic, conv);
                 require(kernels.know(kind), std::string(kernels.name) + " has no " + arithmetic);
                 const int inputs = int(weight.shape(conv ? 1 : 0)), outputs = int(weight.shape(conv ? 2 : 1));
                 const int pair = 2 * unit_inputs(kind);
                 require(inputs % pair == 0, "a weight in " + arithmetic + " needs a multiple of " + std::to_string(pair) + " inputs");
                 nb::gil_scoped_release unlocked;
                 new (self) Packed(kernels, conv ? Packed::Kind::winograd : Packed::Kind::linear, weight.data(), inputs, outputs, kind);
             },
             "weight"_a.noconvert(), "arithmetic"_a = "fp32", "isa"_a = "")
        .def_prop_ro("nbytes", &Packed::bytes);

    nb::class_<Builder>(module, "Step")
        .def(nb::init<int, int, int>(), "batch"_a, "height"_a, "width"_a)
        .def("rows", &Builder::rows, "x"_a.noconvert())
        .def("taps", &Builder::taps, "t"_a.noconvert())
        .def("winograd", &Builder::winograd, "t"_a.noconvert(), "weight"_a, "bias"_a.noconvert(), "relu"_a,
             nb::keep_alive<1, 3>())
        .def("stem", &Builder::stem, "images"_a.noconvert())
        .def("normalise", &Builder::normalise, "partials"_a.noconvert(), "affine"_a.noconvert(), "eps"_a)
        .def("hidden", &Builder::hidden, "weight"_a, "bias"_a.noconvert(), nb::keep_alive<1, 2>())
        .def("score", &Builder::score, "weight"_a, "bias"_a.noconvert(), "heatmaps"_a.noconvert(),
             nb::keep_alive<1, 2>())
        .def("expand", &Builder::expand, "weight"_a, "bias"_a.noconvert(), "relu"_a, nb::keep_alive<1, 2>())
        .def("residual", &Builder::residual, "x"_a.noconvert(), "projected"_a)
        .def("low", &Builder::low, "low"_a.noconvert())
        .def("out", &Builder::out, "x_out"_a.noconvert())
        .def("next", &Builder::next, "affine"_a.noconvert(), "weight"_a, "bias"_a.noconvert(), "t_out"_a.noconvert(),
             nb::keep_alive<1, 3>())
        .def("max_pool", &Builder::max_pool, "x_pool"_a.noconvert())
        .def("pool", &Builder::pool, "affine"_a.noconvert(), "weight"_a, "bias"_a.noconvert(), "t_pool"_a.noconvert(),
             nb::keep_alive<1, 3>())
        .def("statistics", &Builder::statistics, "partials_out"_a.noconvert())
        .def_prop_rw("block", [](const Builder& self) { return self.step.block; },
                     [](Builder& self, int block) {
                         require(block >= 1 && block <= MAX_BLOCK, "a block has 1 to 64 tiles");
                         self.step.block = block;
                     });

    nb::class_<Program>(module, "Program")
        .def("__init__", [](Program* self, const std::string& isa) { new (self) Program(find_kernels(isa)); },
             "isa"_a = "")
        .def("add",
             [](Program& self, const Builder& step) {
                 require(!step.kernels || step.kernels == &self.kernels(), "a step is packed for another instruction set");
                 self.add(step.step, step.partials, step.slots);
             }, "step"_a,
             nb::keep_alive<1, 2>())
        .def("run", &Program::run, "threads"_a, nb::call_guard<nb::gil_scoped_release>());
}
