#include <gtest/gtest.h>

#include <cstdio>

#include "emulated/place.h"
#include "sfumato/device/gpu.h"

namespace sfumato::test {

struct KernelsServe::State {
  // Once: every call opens a stream of its own.
  static c10::Device device() {
    static const c10::Device opened = open_device(ComputeDevice::kCuda);
    return opened;
  }
};

std::string why_no_kernels() {
  return find_gpu_backend() == nullptr ? "no GPU: " + why_no_gpu() : std::string{};
}
bool on_gpu() { return find_gpu_backend() != nullptr; }

KernelsServe::KernelsServe() : state_(std::make_unique<State>()) {}
KernelsServe::~KernelsServe() = default;
c10::Device KernelsServe::device() const { return State::device(); }

}  // namespace sfumato::test

int main(int argc, char** argv) {
  using namespace sfumato;
  if (const GpuBackend* gpu = find_gpu_backend())
    std::printf("on %s\n", gpu->facts(0).name.c_str());
  else
    std::printf("no GPU: skipped (%s)\n", why_no_gpu().c_str());
  std::fflush(stdout);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
