#include "emulation/launch_limits.h"

#include <cuda_runtime.h>

#include <algorithm>

namespace sfumato::emulation {
namespace {

constexpr unsigned kMostThreads = 1024;
constexpr std::size_t kSharedWithoutAsking = 48 << 10;
constexpr std::size_t kMostArgumentBytes = 4 << 10;

}  // namespace

std::string triple(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

Refusal refusal_of(const LaunchShape& shape, std::size_t asked_for) {
  const auto& [gx, gy, gz] = shape.grid;
  const auto& [bx, by, bz] = shape.block;
  if (gx == 0 || gy == 0 || gz == 0 || gx > 0x7fffffffu || gy > 65535 || gz > 65535)
    return {cudaErrorInvalidConfiguration,
            "grid " + triple(gx, gy, gz) + ": 1 to (2147483647, 65535, 65535) blocks"};
  if (bx == 0 || by == 0 || bz == 0 || bx > kMostThreads || by > kMostThreads || bz > 64 ||
      bx * by * bz > kMostThreads)
    return {cudaErrorInvalidConfiguration, "block " + triple(bx, by, bz) + ": 1 to 1024 threads"};
  const std::size_t allowed = std::max(kSharedWithoutAsking, asked_for);
  if (shape.shared_bytes > allowed)
    return {cudaErrorInvalidValue,
            std::to_string(shape.shared_bytes) + " bytes of shared memory; this kernel may have " +
                std::to_string(allowed) + " (more only after cudaFuncSetAttribute)"};
  if (shape.argument_bytes > kMostArgumentBytes)
    return {cudaErrorInvalidValue,
            std::to_string(shape.argument_bytes) + " bytes of kernel arguments, at most 4096"};
  return {};
}

}  // namespace sfumato::emulation
