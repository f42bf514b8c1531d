#include "emulated/place.h"
#include "kernels/kernel_set.h"
#include "sfumato/device/kernel_bridge.h"

namespace sfumato::test {

struct KernelsServe::State {
  EmulatedKernels guard{compiled_kernels()};
};

std::string why_no_kernels() { return {}; }
bool on_gpu() { return false; }

KernelsServe::KernelsServe() : state_(std::make_unique<State>()) {}
KernelsServe::~KernelsServe() = default;
c10::Device KernelsServe::device() const { return c10::Device(c10::kCPU); }

}  // namespace sfumato::test
