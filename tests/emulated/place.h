#pragma once
#include <c10/core/Device.h>

#include <memory>
#include <string>

namespace sfumato::test {

// The tests of this folder are compiled twice: into test_emulated, where the emulator executes the
// kernels on the CPU (place_emulated.cpp), and into test_device, where a GPU does
// (tests/device/place_cuda.cpp).

/// Empty where kernels can run here, else why not.
std::string why_no_kernels();
/// Whether a GPU runs them: then shapes may be large.
bool on_gpu();

/// While it lives, tensors on device() are served by kernels. Without one, CPU tensors are served
/// by the CPU's own rules: the reference.
class KernelsServe {
 public:
  KernelsServe();
  ~KernelsServe();
  KernelsServe(const KernelsServe&) = delete;
  KernelsServe& operator=(const KernelsServe&) = delete;
  c10::Device device() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sfumato::test
