// A network, or a part of one, as steps that run one after the other.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "step.h"

namespace fasthg {

// The instruction sets that this machine can run, the best first.
std::vector<const Kernels*> available_kernels();

// A weight as one instruction set's kernels read it.
class Packed {
   public:
    enum class Kind { linear, winograd };

    // weight [inputs, outputs], or [9, inputs, outputs] for a 3x3 by Winograd.
    Packed(const Kernels& kernels, Kind kind, const float* weight, int inputs, int outputs, Arithmetic arithmetic);
    Packed(const Packed&) = delete;
    ~Packed();

    Linear with_bias(const float* bias) const { return {arithmetic_, panels_, bias, inputs_, outputs_}; }
    std::size_t bytes() const { return bytes_; }
    const Kernels& kernels() const { return kernels_; }

   private:
    const Kernels& kernels_;
    float* panels_;
    int inputs_, outputs_;
    Arithmetic arithmetic_;
    std::size_t bytes_;
};

class Program {
   public:
    explicit Program(const Kernels& kernels) : kernels_(kernels) {}
    // A step, and the group-norm statistics [batch, slots, 3] of its x, or null; everything it points to must stay.
    void add(Step step, float* partials, int slots);
    void run(int threads) const;
    const Kernels& kernels() const { return kernels_; }

   private:
    struct Part {
        Step step;
        std::vector<float> tile_statistics;
        float* partials;
        int slots;
        void merge_statistics() const;
    };
    struct Run;

    const Kernels& kernels_;
    std::vector<std::shared_ptr<const Part>> parts_;
    std::size_t scratch_floats_ = 0;
};

}  // namespace fasthg
