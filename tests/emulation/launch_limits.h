#pragma once
#include <cstddef>
#include <string>

#include "emulation/emulator.h"

namespace sfumato::emulation {

struct Refusal {
  int status = 0;  // a cudaError_t
  std::string why;
};

/// Why CUDA would not start this; status 0 if it would. `asked_for` is the shared memory that
/// cudaFuncSetAttribute allowed the kernel.
Refusal refusal_of(const LaunchShape& shape, std::size_t asked_for);

/// "(x, y, z)".
std::string triple(unsigned x, unsigned y, unsigned z);

}  // namespace sfumato::emulation
