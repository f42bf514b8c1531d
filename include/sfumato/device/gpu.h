#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "sfumato/core/choices.h"

namespace sfumato {

struct KernelSet;

/// What a GPU is, as its driver says.
struct GpuFacts {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  int64_t multiprocessors = 0;
  int64_t memory_bytes = 0;
  double memory_bytes_per_s = 0;  ///< from memory clock and bus width; 0 if the driver hides them
  double clock_hz = 0;            ///< of the multiprocessors, at most; 0 if hidden
  std::string driver, runtime;    ///< CUDA versions, "13.0"
};

/// Bytes on the current GPU.
struct GpuMemory {
  int64_t free = 0;       ///< what the driver can still give
  int64_t allocated = 0;  ///< by tensors alive
  int64_t cached = 0;     ///< held by the allocator, not by tensors
  int64_t peak = 0;       ///< most that tensors held since reset_peak
};

/// Work that was recorded once and runs again with the same addresses (a CUDA graph).
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  virtual void replay() = 0;
};

/// Everything that needs CUDA, behind one interface: libsfumato_cuda.so implements it and is loaded
/// only where a GPU is asked for, so that work on the CPU starts without CUDA's libraries.
class GpuBackend {
 public:
  virtual ~GpuBackend() = default;
  virtual int count() const = 0;
  virtual GpuFacts facts(int device) const = 0;
  /// Makes `device` current for the calling thread, with a stream of its own on which work can be
  /// recorded.
  virtual void select(int device) const = 0;
  virtual int current_device() const = 0;
  virtual const KernelSet& kernels() const = 0;
  /// cudaStream_t of the calling thread.
  virtual void* current_stream() const = 0;
  virtual void synchronize() const = 0;
  virtual GpuMemory memory() const = 0;
  virtual void reset_peak() const = 0;
  /// Gives memory that no tensor holds back to the driver.
  virtual void release_cached_memory() const = 0;
  /// Runs `work` in recording mode: nothing is computed until replay. `work` must not wait for the
  /// GPU. An exception of `work` passes through; then nothing was recorded.
  virtual std::unique_ptr<RecordedWork> record(const std::function<void()>& work) const = 0;
  /// Seconds of one `work`, between two events on the GPU.
  virtual double seconds_of(const std::function<void()>& work) const = 0;
};

/// The backend, loaded at the first call; null where this build or machine has none, and then
/// `why_no_gpu` says what is missing and what to do.
const GpuBackend* find_gpu_backend();
std::string why_no_gpu();

/// A function that the backend's library exports under this name for other areas; null where there
/// is no backend or it was built without.
void* find_in_gpu_library(const char* name);

/// What a choice comes to on this machine: where it is left to the machine, a GPU if there is one.
ComputeDevice chosen_device(DeviceChoice choice);

/// As a device that is ready for work. DeviceError, with the remedy, where there is no GPU.
c10::Device open_device(ComputeDevice device);

}  // namespace sfumato
