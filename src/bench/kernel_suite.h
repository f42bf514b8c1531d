#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/bench/kernel_benchmark.h"
#include "sfumato/device/gpu.h"

namespace sfumato {

/// Collects rows of a benchmark: runs the work of each and looks at the clock.
class KernelSuite {
 public:
  using Work = std::function<void()>;

  explicit KernelSuite(const KernelBenchmarkOptions& options);

  const KernelBenchmarkOptions& options() const { return options_; }
  bool on_gpu() const { return gpu_ != nullptr; }
  /// Random numbers on the device.
  at::Tensor random(at::IntArrayRef sizes, at::ScalarType type) const;
  at::Tensor zeros(at::IntArrayRef sizes, at::ScalarType type) const;

  Timing time(const Work& work);
  /// A row of a kernel that serves both devices. `prepare` makes the tensors and returns the work;
  /// they are gone when the next row starts. What does not fit the memory is a row that says so.
  void add(KernelRow row, const std::function<Work()>& prepare);
  /// A row of a kernel that needs a GPU; `compare`, if given, times the library with the same
  /// tensors.
  void add_on_gpu(KernelRow row, const std::function<Work()>& prepare,
                  const std::function<void(KernelRow&)>& compare = {});

  KernelBenchmark take();

 private:
  void measure_memory();
  std::unique_ptr<RecordedWork> record(const Work& work) const;

  KernelBenchmarkOptions options_;
  c10::Device device_;
  const GpuBackend* gpu_;
  at::Tensor flush_;
  KernelBenchmark result_;
};

const char* element_name(at::ScalarType type);  ///< "bf16" or, for float32, "tf32"

/// Weight gradients and Gram norms on a network's layers.
void add_layer_kernels(KernelSuite& suite);
/// Norms, look-ups, clipping: what moves bytes.
void add_streaming_kernels(KernelSuite& suite);
/// Noise and update.
void add_update_kernels(KernelSuite& suite);

}  // namespace sfumato
