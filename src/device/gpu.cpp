#include "sfumato/device/gpu.h"

#include <ATen/Context.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <stdlib.h>  // setenv is not in <cstdlib>

#include <filesystem>

#include "sfumato/core/error.h"
#include "sfumato/core/place.h"

namespace sfumato {
namespace {

constexpr const char* kPlugin = "libsfumato_cuda.so";
/// What the plugin exports: a GpuBackend that lives as long as the process, or null with a reason.
constexpr const char* kEntry = "sfumato_gpu_backend";
#if defined(SFUMATO_HAVE_CUDA)
constexpr bool kBuiltWithCuda = true;
#else
constexpr bool kBuiltWithCuda = false;
#endif
using Entry = const GpuBackend* (*)(const char** reason);

struct Found {
  const GpuBackend* backend = nullptr;
  std::string reason;
  void* library = nullptr;
};

/// Beside the program, or where an installation and a bundle keep libraries.
std::filesystem::path plugin_path() {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path folder = this_program().parent_path();
  for (const fs::path& place : {folder / kPlugin, folder.parent_path() / "lib" / kPlugin})
    if (fs::exists(place, ignored)) return place;
  return {};
}

Found load() {
  const std::filesystem::path path = plugin_path();
  if (path.empty())
    return {nullptr,
            kBuiltWithCuda
                ? fmt::format("{}, which this build makes, is not beside the program: "
                              "build again (scripts/build), or move both together",
                              kPlugin)
                : std::string("this build was made without CUDA: build again "
                              "(scripts/build) where nvcc of CUDA 12.8 or later is found")};
  // cuBLAS sums in a fixed order only with workspaces of a fixed size; a user's own choice stands.
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return {nullptr, fmt::format("'{}' could not be loaded ({}); CUDA's libraries come with "
                                 "torch, see scripts/setup",
                                 path.string(), ::dlerror())};
  const auto entry = reinterpret_cast<Entry>(::dlsym(library, kEntry));
  if (entry == nullptr)
    return {nullptr, fmt::format("'{}' belongs to another build; build again", path.string())};
  const char* reason = "";
  const GpuBackend* backend = entry(&reason);
  if (backend != nullptr && !at::hasCUDA())
    return {nullptr,
            "LibTorch had already settled that there is none: a GPU must be asked for before "
            "the first tensor work of the process"};
  return {backend, backend == nullptr ? reason : "", library};
}

const Found& found() {
  static const Found result = load();
  return result;
}

}  // namespace

const GpuBackend* find_gpu_backend() { return found().backend; }

std::string why_no_gpu() { return found().reason; }

void* find_in_gpu_library(const char* name) {
  return find_gpu_backend() == nullptr ? nullptr : ::dlsym(found().library, name);
}

ComputeDevice chosen_device(DeviceChoice choice) {
  if (choice == DeviceChoice::kAuto)
    return find_gpu_backend() != nullptr ? ComputeDevice::kCuda : ComputeDevice::kCpu;
  return choice == DeviceChoice::kCuda ? ComputeDevice::kCuda : ComputeDevice::kCpu;
}

c10::Device open_device(ComputeDevice device) {
  if (device == ComputeDevice::kCpu) return c10::Device(c10::kCPU);
  const GpuBackend* backend = find_gpu_backend();
  if (backend == nullptr)
    throw DeviceError(fmt::format(
        "a GPU was asked for, but {}; or use the CPU (performance.device=cpu)", why_no_gpu()));
  backend->select(0);
  return c10::Device(c10::kCUDA, 0);
}

}  // namespace sfumato
