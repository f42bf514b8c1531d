#include "pretend_gpu/device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>

#include "pretend_gpu/capture.h"
#include "pretend_gpu/report.h"
#include "pretend_gpu/settings.h"

namespace pretend_gpu {
namespace {

constexpr size_t kAddressSpace = size_t{1} << 43;
/// cudaMalloc's addresses are multiples of this.
constexpr size_t kAlignment = 512;
constexpr size_t kPage = 4096;

using Ranges = std::map<const char*, size_t>;

struct State {
  char* base = nullptr;
  size_t given_out = 0;
  Ranges device, pinned, registered;
  size_t live = 0, peak = 0;
};
State& state() {
  static auto* const once = new State;
  return *once;
}

const char* bytes_at(const void* address) { return static_cast<const char*>(address); }

bool contains(const Ranges& ranges, const void* address, size_t bytes) {
  auto found = ranges.upper_bound(bytes_at(address));
  if (found == ranges.begin()) return false;
  --found;
  return static_cast<size_t>(bytes_at(address) - found->first) + bytes <= found->second;
}

void reserve_address_space() {
  if (state().base != nullptr) return;
  void* space =
      ::mmap(nullptr, kAddressSpace, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) {
    std::perror("pretend_gpu: cannot reserve 8 TiB of address space (ulimit -v)");
    std::abort();
  }
  state().base = static_cast<char*>(space);
}

cudaError_t release(void* address, const char* who) {
  const Lock lock;
  const auto found = state().device.find(static_cast<char*>(address));
  if (found == state().device.end())
    return illegal(cudaErrorInvalidValue,
                   std::string(who) + " of an address that is not, or no longer, allocated");
  state().live -= (found->second + kAlignment - 1) / kAlignment * kAlignment;
  state().device.erase(found);
  return cudaSuccess;
}

}  // namespace

cudaError_t allocate(void** address, size_t bytes) {
  const Lock lock;
  *address = nullptr;
  if (bytes == 0) return cudaSuccess;
  reserve_address_space();
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (rounded < bytes || state().live + rounded > settings().memory_bytes ||
      state().given_out + rounded > kAddressSpace) {
    count(Count::kAllocationsRefused);
    return set_last_error(cudaErrorMemoryAllocation);
  }
  count(Count::kAllocations);
  *address = state().base + state().given_out;
  state().given_out += rounded;
  state().device[static_cast<char*>(*address)] = bytes;
  state().live += rounded;
  state().peak = std::max(state().peak, state().live);
  return cudaSuccess;
}

bool is_device_address(const void* address) {
  const Lock lock;
  const char* base = state().base;
  return base != nullptr && bytes_at(address) >= base && bytes_at(address) < base + kAddressSpace;
}

bool is_pinned(const void* address) {
  const Lock lock;
  return contains(state().pinned, address, 1) || contains(state().registered, address, 1);
}

bool is_allocated(const void* address, size_t bytes) {
  const Lock lock;
  return contains(state().device, address, bytes);
}

size_t live_bytes() {
  const Lock lock;
  return state().live;
}

size_t peak_bytes() {
  const Lock lock;
  return state().peak;
}

}  // namespace pretend_gpu

// The runtime's functions
// --------------------------------------------------------------------------

using namespace pretend_gpu;

extern "C" {

cudaError_t cudaMalloc(void** address, size_t bytes) {
  if (const cudaError_t error = check_unsafe_call("cudaMalloc")) return error;
  return allocate(address, bytes);
}

cudaError_t cudaFree(void* address) {
  if (address == nullptr) return use_device("cudaFree");
  if (const cudaError_t error = check_unsafe_call("cudaFree")) return error;
  return release(address, "cudaFree");
}

cudaError_t cudaMallocAsync(void** address, size_t bytes, cudaStream_t stream) {
  if (const cudaError_t error = submit(stream, "cudaMallocAsync", 0)) return error;
  return allocate(address, bytes);
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t stream) {
  if (const cudaError_t error = submit(stream, "cudaFreeAsync", 0)) return error;
  return release(address, "cudaFreeAsync");
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  if (const cudaError_t error = use_device("cudaMemGetInfo")) return error;
  *total = settings().memory_bytes;
  *free = *total - live_bytes();
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  if (const cudaError_t error = check_unsafe_call("cudaHostAlloc")) return error;
  const Lock lock;
  const size_t rounded = std::max((bytes + kPage - 1) / kPage, size_t{1}) * kPage;
  *address = std::aligned_alloc(kPage, rounded);
  if (*address == nullptr) return set_last_error(cudaErrorMemoryAllocation);
  state().pinned[static_cast<char*>(*address)] = rounded;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* address) {
  if (address == nullptr) return cudaSuccess;
  if (const cudaError_t error = check_unsafe_call("cudaFreeHost")) return error;
  const Lock lock;
  if (state().pinned.erase(static_cast<char*>(address)) == 0)
    return illegal(cudaErrorInvalidValue,
                   "cudaFreeHost of an address that is not, or no longer, allocated");
  std::free(address);
  return cudaSuccess;
}

cudaError_t cudaHostRegister(void* address, size_t bytes, unsigned) {
  if (const cudaError_t error = check_unsafe_call("cudaHostRegister")) return error;
  const Lock lock;
  if (!state().registered.emplace(static_cast<char*>(address), bytes).second)
    return illegal(cudaErrorHostMemoryAlreadyRegistered, "cudaHostRegister of the same memory");
  return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* address) {
  if (const cudaError_t error = check_unsafe_call("cudaHostUnregister")) return error;
  const Lock lock;
  if (state().registered.erase(static_cast<char*>(address)) == 0)
    return illegal(cudaErrorHostMemoryNotRegistered, "cudaHostUnregister of other memory");
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  if (const cudaError_t error = use_device("cudaPointerGetAttributes")) return error;
  *attributes = {};
  if (is_device_address(address)) {
    attributes->type = cudaMemoryTypeDevice;
    attributes->devicePointer = const_cast<void*>(address);
  } else if (is_pinned(address)) {
    attributes->type = cudaMemoryTypeHost;
    attributes->devicePointer = attributes->hostPointer = const_cast<void*>(address);
  } else {
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = cudaInvalidDeviceId;
    attributes->hostPointer = const_cast<void*>(address);
  }
  return cudaSuccess;
}

// Memory pools: an allocation of theirs is one of cudaMalloc.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = reinterpret_cast<cudaMemPool_t>(&state());
  return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return not_pretended("cudaMemPoolGetAttribute");
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t, const cudaMemAccessDesc*, size_t) {
  return not_pretended("cudaMemPoolSetAccess");
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }

}  // extern "C"
