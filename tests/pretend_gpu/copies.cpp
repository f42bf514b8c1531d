// Copies and fills. The device's memory has no content: what is copied to it is lost, what is
// copied from it is zero. A truth value leaves it as one byte, see PRETEND_GPU_TRUTHS.
#include <cstring>
#include <string>

#include "pretend_gpu/capture.h"
#include "pretend_gpu/device_memory.h"
#include "pretend_gpu/report.h"
#include "pretend_gpu/settings.h"

namespace pretend_gpu {
namespace {

/// 2 us and 100 GB/s.
double microseconds_of(size_t bytes) { return 2 + static_cast<double>(bytes) * 1e-5; }

const char* direction(cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost: return "from host to host";
    case cudaMemcpyHostToDevice: return "from host to device";
    case cudaMemcpyDeviceToHost: return "from device to host";
    case cudaMemcpyDeviceToDevice: return "from device to device";
    default: return "of either direction";
  }
}

/// Whether an address can be what the direction of a copy says it is. The device can use pinned
/// memory of the host.
bool can_be(const void* address, bool device) {
  if (is_device_address(address)) return device;
  return !device || is_pinned(address);
}

bool fits_kind(const void* to, const void* from, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) return true;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return can_be(to, to_device) && can_be(from, from_device);
}

cudaError_t fill(void* to, size_t bytes, const char* who) {
  if (bytes == 0 || is_allocated(to, bytes) || is_pinned(to)) return cudaSuccess;
  return illegal(cudaErrorInvalidValue,
                 std::string(who) + " of " + std::to_string(bytes) + " bytes beyond an allocation");
}

cudaError_t check_copy(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                       const char* who) {
  const std::string what =
      std::string(who) + " " + direction(kind) + " of " + std::to_string(bytes) + " bytes ";
  if (!fits_kind(to, from, kind))
    return illegal(cudaErrorInvalidValue, what + "whose addresses are of another kind");
  if (is_device_address(to) && !is_allocated(to, bytes))
    return illegal(cudaErrorInvalidValue, what + "to what is not, or not all, allocated");
  if (is_device_address(from) && !is_allocated(from, bytes))
    return illegal(cudaErrorInvalidValue, what + "from what is not, or not all, allocated");
  return cudaSuccess;
}

/// What the host sees of a copy. The ends of its memory are read, as a real copy would read them.
void move(void* to, const void* from, size_t bytes) {
  const bool to_device = is_device_address(to), from_device = is_device_address(from);
  if (to_device && from_device) {
    count(Count::kCopiesOnDevice);
  } else if (to_device) {
    count(Count::kCopiesToDevice);
    const auto* data = static_cast<const volatile char*>(from);
    (void)data[0];
    (void)data[bytes - 1];
  } else {
    count(Count::kCopiesToHost);
    if (from_device)
      std::memset(to, bytes == 1 && settings().truths ? 1 : 0, bytes);
    else
      std::memmove(to, from, bytes);
  }
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, const char* who) {
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t error = check_copy(to, from, bytes, kind, who)) return error;
  move(to, from, bytes);
  return cudaSuccess;
}

}  // namespace
}  // namespace pretend_gpu

using namespace pretend_gpu;

extern "C" {

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  constexpr const char* kName = "cudaMemcpyAsync";
  if (const cudaError_t error = submit(stream, kName, microseconds_of(bytes))) return error;
  if (!is_captured(stream)) return copy(to, from, bytes, kind, kName);
  if (bytes == 0) return cudaSuccess;
  if (!is_device_address(to) || !is_device_address(from))
    warn("cudaMemcpyAsync of " + std::to_string(bytes) +
         " bytes to or from the host is recorded in a capture");
  return check_copy(to, from, bytes, kind, kName);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t error = check_unsafe_call("cudaMemcpy")) return error;
  if (const cudaError_t error = submit(nullptr, "cudaMemcpy", microseconds_of(bytes))) return error;
  count(Count::kSynchronisations);
  return copy(to, from, bytes, kind, "cudaMemcpy");
}

cudaError_t cudaMemcpy2DAsync(void*, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind,
                              cudaStream_t) {
  return not_pretended("cudaMemcpy2DAsync");
}

cudaError_t cudaMemcpyPeerAsync(void*, int, const void*, int, size_t, cudaStream_t) {
  return not_pretended("cudaMemcpyPeerAsync");
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset,
                               cudaMemcpyKind kind) {
  if (const cudaError_t error = check_unsafe_call("cudaMemcpyToSymbol")) return error;
  void* address = nullptr;
  if (const cudaError_t error = cudaGetSymbolAddress(&address, symbol)) return error;
  return copy(static_cast<char*>(address) + offset, from, bytes, kind, "cudaMemcpyToSymbol");
}

cudaError_t cudaMemset(void* to, int, size_t bytes) {
  if (const cudaError_t error = submit(nullptr, "cudaMemset", microseconds_of(bytes))) return error;
  return fill(to, bytes, "cudaMemset");
}

cudaError_t cudaMemsetAsync(void* to, int, size_t bytes, cudaStream_t stream) {
  if (const cudaError_t error = submit(stream, "cudaMemsetAsync", microseconds_of(bytes)))
    return error;
  return fill(to, bytes, "cudaMemsetAsync");
}

}  // extern "C"
