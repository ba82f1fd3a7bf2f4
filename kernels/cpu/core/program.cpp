#include "program.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <stdexcept>

#include "team.h"

namespace fasthg {

#if defined(__x86_64__)
namespace avx512bf16 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#endif
namespace portable {
extern const Kernels kernels;
}

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
#if defined(FASTHG_AVX512_IN_C)
    const bool avx512 = true, bf16 = true;
#else
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
#endif
    if (bf16) {
        found.push_back(&avx512bf16::kernels);
    }
    if (avx512) {
        found.push_back(&avx512::kernels);
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        found.push_back(&avx2::kernels);
    }
#endif
    found.push_back(&portable::kernels);
    return found;
}

Packed::Packed(const Kernels& kernels, Kind kind, const float* weight, int inputs, int outputs, Arithmetic arithmetic)
    : kernels_(kernels), inputs_(inputs), outputs_(outputs), arithmetic_(arithmetic) {
    const bool conv = kind == Kind::winograd;
    bytes_ = (conv ? kernels.winograd_floats : kernels.linear_floats)(inputs, outputs, arithmetic) * sizeof(float);
    panels_ = static_cast<float*>(::operator new[](bytes_, std::align_val_t(64)));
    if (conv) {
        float* room = scratch(kernels.winograd_floats(inputs, outputs, Arithmetic::fp32));
        kernels.pack_winograd(weight, inputs, outputs, arithmetic, panels_, room);
    } else {
        kernels.pack_linear(weight, inputs, outputs, arithmetic, panels_);
    }
}

Packed::~Packed() { ::operator delete[](panels_, std::align_val_t(64)); }

namespace {

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// How long a thread that has nothing left in a step looks for its end before it sleeps: longer than the last block takes,
// because to be woken takes 0.1 to 0.3 ms on a virtual machine, as long as many a step. Bounded, because the core may
// be wanted by somebody else, by the thread that is waited for even.
constexpr std::chrono::microseconds PATIENCE{500};
constexpr int GLANCES = 64;  // between two looks at the clock

}  // namespace

// One pass over the steps. A step begins when every block of the one before is done, whoever did them.
struct Program::Run : Job {
    struct alignas(64) Counter {
        std::atomic<long> next{0}, done{0};
    };

    Run(const Program& program)
        : kernels(program.kernels_), parts(program.parts_), scratch_floats(program.scratch_floats_), counters(parts.size()) {}

    void work() override {
        float* memory = scratch(scratch_floats);
        for (std::size_t i = 0; i < parts.size(); i++) {
            const Step& step = parts[i]->step;
            Counter& counter = counters[i];
            const long blocks = step.blocks();
            for (long block; (block = counter.next.fetch_add(1, std::memory_order_relaxed)) < blocks;) {
                kernels.run(step, block, memory);
                if (counter.done.fetch_add(1, std::memory_order_acq_rel) + 1 == blocks) {
                    parts[i]->merge_statistics();
                    complete(i + 1);
                }
            }
            await(i + 1);
        }
    }

    void complete(std::size_t steps) {
        completed.store(steps);
        if (sleepers.load() > 0) {
            std::lock_guard<std::mutex> lock(mutex);
            wake.notify_all();
        }
    }

    void await(std::size_t steps) {
        const auto limit = std::chrono::steady_clock::now() + PATIENCE;
        do {
            for (int glance = 0; glance < GLANCES; glance++) {
                if (completed.load(std::memory_order_acquire) >= steps) {
                    return;
                }
                pause();
            }
        } while (std::chrono::steady_clock::now() < limit);
        std::unique_lock<std::mutex> lock(mutex);
        sleepers.fetch_add(1);
        wake.wait(lock, [&] { return completed.load() >= steps; });
        sleepers.fetch_sub(1);
    }

    const Kernels& kernels;
    const std::vector<std::shared_ptr<const Part>> parts;
    const std::size_t scratch_floats;
    std::vector<Counter> counters;
    alignas(64) std::atomic<std::size_t> completed{0};
    std::atomic<int> sleepers{0};
    std::mutex mutex;
    std::condition_variable wake;
};

void Program::add(Step step, float* partials, int slots) {
    auto part = std::make_shared<Part>();
    if (partials) {
        part->tile_statistics.resize(step.grid.tiles() * 3);
        step.tile_statistics = part->tile_statistics.data();
    }
    part->step = step;
    part->partials = partials;
    part->slots = slots;
    scratch_floats_ = std::max(scratch_floats_, kernels_.scratch_floats(step));
    parts_.push_back(std::move(part));
}

void Program::run(int threads) const { work_together(std::make_shared<Run>(*this), threads); }

// An image's tiles in their order, whoever computed them: the same numbers in every run. Chan, Golub and LeVeque (1983).
void Program::Part::merge_statistics() const {
    if (!partials) {
        return;
    }
    const long tiles = step.grid.tiles_an_image();
    std::fill(partials, partials + static_cast<std::size_t>(step.grid.batch) * slots * 3, 0.0f);
    for (int image = 0; image < step.grid.batch; image++) {
        double count = 0, mean = 0, squares = 0;
        for (const float* tile = tile_statistics.data() + image * tiles * 3, *end = tile + tiles * 3; tile < end; tile += 3) {
            const double apart = tile[1] - mean, total = count + tile[0];
            mean += apart * tile[0] / total;
            squares += tile[2] + apart * apart * count * tile[0] / total;
            count = total;
        }
        float* to = partials + static_cast<std::size_t>(image) * slots * 3;
        to[0] = static_cast<float>(count);
        to[1] = static_cast<float>(mean);
        to[2] = static_cast<float>(squares);
    }
}

}  // namespace fasthg
