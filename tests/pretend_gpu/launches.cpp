// Kernels: registered by the code that nvcc puts into a library, started, and not executed.
#include "pretend_gpu/launches.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include "pretend_gpu/capture.h"
#include "pretend_gpu/device_memory.h"
#include "pretend_gpu/report.h"
#include "pretend_gpu/settings.h"

namespace pretend_gpu {
namespace {

struct Kernel {
  std::string mangled;
  size_t most_shared = kSharedBytesWithoutAsking;
};

struct Variable {
  size_t bytes = 0;
  void* address = nullptr;
};

/// What <<<...>>> remembers between its two calls.
struct Configuration {
  dim3 grid, block;
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
};

struct State {
  std::map<const void*, Kernel> kernels;  ///< by the address of the host's function
  std::map<const void*, Variable> variables;
};
State& state() {
  static auto* const once = new State;
  return *once;
}

thread_local std::vector<Configuration> configurations;

/// "name(parameters)", or the mangled name where it has no other.
std::string signature(const Kernel& kernel) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(kernel.mangled.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 ? text.get() : kernel.mangled;
}

/// For messages: long template arguments are cut.
std::string short_name(const Kernel& kernel) {
  constexpr size_t kMost = 160;
  const std::string text = signature(kernel);
  return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

bool has_parameters(const Kernel& kernel) {
  const std::string text = signature(kernel);
  return text.find('(') != std::string::npos && !text.ends_with("()");
}

Kernel* find_kernel(const void* function) {
  const auto found = state().kernels.find(function);
  return found == state().kernels.end() ? nullptr : &found->second;
}

cudaError_t no_kernel(const char* who) {
  return illegal(cudaErrorInvalidDeviceFunction,
                 std::string(who) + " of a function that is no kernel");
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments,
                   size_t shared_bytes, cudaStream_t stream) {
  const Lock lock;
  if (const cudaError_t error = use_device("a launch")) return error;
  const Kernel* kernel = find_kernel(function);
  if (kernel == nullptr) return no_kernel("a launch");
  const std::string name = short_name(*kernel);
  if (const cudaError_t error = check_grid(grid, block, shared_bytes, kernel->most_shared, name))
    return error;
  if (arguments == nullptr && has_parameters(*kernel))
    return illegal(cudaErrorInvalidValue, "a launch without arguments: " + name);
  if (const cudaError_t error = submit(stream, name, microseconds_of(grid))) return error;
  count(Count::kLaunches);
  return cudaSuccess;
}

size_t blocks_that_fit(int threads, size_t shared_bytes) {
  const Settings& s = settings();
  if (threads <= 0 || threads > kThreadsPerBlock) return 0;
  const size_t by_threads = static_cast<size_t>(s.threads_per_multiprocessor / threads);
  const size_t by_shared =
      s.shared_bytes_per_multiprocessor / (shared_bytes + kReservedSharedBytes);
  return std::min({by_threads, by_shared, static_cast<size_t>(s.blocks_per_multiprocessor)});
}

}  // namespace

double microseconds_of(dim3 grid) {
  // 4 us to start, and 1 us for each thousand blocks.
  return 4 + 1e-3 * static_cast<double>(grid.x) * grid.y * grid.z;
}

cudaError_t check_grid(dim3 grid, dim3 block, size_t shared_bytes, size_t asked_for,
                       const std::string& kernel) {
  constexpr unsigned kMostX = 2147483647, kMostYz = 65535, kMostBlockZ = 64;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > kMostX || grid.y > kMostYz ||
      grid.z > kMostYz)
    return illegal(cudaErrorInvalidConfiguration,
                   "a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                       std::to_string(grid.z) + " blocks: " + kernel);
  if (threads == 0 || threads > static_cast<uint64_t>(kThreadsPerBlock) || block.z > kMostBlockZ)
    return illegal(cudaErrorInvalidConfiguration,
                   "blocks of " + std::to_string(block.x) + " x " + std::to_string(block.y) +
                       " x " + std::to_string(block.z) + " threads: " + kernel);
  if (shared_bytes > asked_for)
    return illegal(cudaErrorInvalidValue,
                   std::to_string(shared_bytes) + " bytes of shared memory where " +
                       std::to_string(asked_for) + " were asked for: " + kernel);
  return cudaSuccess;
}

cudaError_t launch_of_library(cudaStream_t stream, const char* who) {
  if (const cudaError_t error = submit(stream, who, microseconds_of(dim3(1)))) return error;
  count(Count::kLaunches);
  return cudaSuccess;
}

}  // namespace pretend_gpu

// The runtime's functions
// --------------------------------------------------------------------------

using namespace pretend_gpu;

extern "C" {

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared_bytes, cudaStream_t stream) {
  return launch(function, grid, block, arguments, shared_bytes, stream);
}

cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3 grid, dim3 block,
                                        void** arguments, size_t shared_bytes,
                                        cudaStream_t stream) {
  return launch(function, grid, block, arguments, shared_bytes, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* function,
                                void** arguments) {
  return launch(function, c->gridDim, c->blockDim, arguments, c->dynamicSmemBytes, c->stream);
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const Lock lock;
  if (const cudaError_t error = use_device("cudaFuncSetAttribute")) return error;
  Kernel* kernel = find_kernel(function);
  if (kernel == nullptr) return no_kernel("cudaFuncSetAttribute");
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > settings().shared_bytes_per_block)
    return illegal(
        cudaErrorInvalidValue,
        "cudaFuncSetAttribute: " + std::to_string(value) +
            " bytes of shared memory, more than a block can have: " + short_name(*kernel));
  kernel->most_shared = std::max(static_cast<size_t>(value), kSharedBytesWithoutAsking);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  const Lock lock;
  if (const cudaError_t error = use_device("cudaFuncGetAttributes")) return error;
  const Kernel* kernel = find_kernel(function);
  if (kernel == nullptr) return no_kernel("cudaFuncGetAttributes");
  *attributes = {};
  attributes->maxThreadsPerBlock = kThreadsPerBlock;
  attributes->numRegs = kRegistersPerMultiprocessor / kThreadsPerBlock;
  attributes->binaryVersion = attributes->ptxVersion = 10 * settings().major + settings().minor;
  attributes->maxDynamicSharedSizeBytes = static_cast<int>(kernel->most_shared);
  attributes->preferredShmemCarveout = -1;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks,
                                                                   const void* function,
                                                                   int threads, size_t shared_bytes,
                                                                   unsigned) {
  const Lock lock;
  if (find_kernel(function) == nullptr) return no_kernel("cudaOccupancyMaxActiveBlocks");
  *blocks = static_cast<int>(blocks_that_fit(threads, shared_bytes));
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int threads, size_t shared_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads,
                                                                shared_bytes, 0);
}

cudaError_t cudaGetSymbolAddress(void** address, const void* symbol) {
  const Lock lock;
  if (const cudaError_t error = use_device("cudaGetSymbolAddress")) return error;
  const auto found = state().variables.find(symbol);
  if (found == state().variables.end())
    return illegal(cudaErrorInvalidSymbol,
                   "cudaGetSymbolAddress of what is no variable of the device");
  if (found->second.address == nullptr)
    if (const cudaError_t error = allocate(&found->second.address, found->second.bytes))
      return error;
  *address = found->second.address;
  return cudaSuccess;
}

// What nvcc's code calls, see crt/host_runtime.h. A kernel's handle is its host function's address.

void** __cudaRegisterFatBinary(void* binary) { return static_cast<void**>(binary); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }

void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  const Lock lock;
  state().kernels[function].mangled = name;
}

void __cudaRegisterVar(void**, char* variable, char*, const char*, int, size_t bytes, int, int) {
  const Lock lock;
  state().variables[variable].bytes = bytes;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared_bytes, cudaStream_t stream) {
  return launch(kernel, grid, block, arguments, shared_bytes, stream);
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes,
                                     cudaStream_t stream) {
  configurations.push_back({grid, block, shared_bytes, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes,
                                       void* stream) {
  if (configurations.empty())
    return illegal(cudaErrorMissingConfiguration, "a kernel was called without <<<...>>>");
  const Configuration last = configurations.back();
  configurations.pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared_bytes = last.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  return cudaSuccess;
}

}  // extern "C"
