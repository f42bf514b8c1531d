// libsfumato_cuda.so: the only host code that is compiled against CUDA's headers.
#include <ATen/Context.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "kernels/kernel_set.h"
#include "sfumato/device/gpu.h"

namespace sfumato {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  return cudaDeviceGetAttribute(&value, name, device) == cudaSuccess ? value : 0;
}

class CudaGraph final : public RecordedWork {
 public:
  void record(const std::function<void()>& work) {
    const c10::MempoolId_t pool = at::cuda::graph_pool_handle();
    try {
      // Other threads may allocate meanwhile: only this work is held to the rules of recording.
      graph_.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    } catch (...) {
      leave(pool);
      throw;
    }
    try {
      work();
    } catch (...) {
      end_failed(pool);
      throw;
    }
    try {
      graph_.capture_end();
    } catch (...) {
      leave(pool);
      throw;
    }
  }
  void replay() override { graph_.replay(); }

 private:
  /// After an exception in what was to be recorded, which says what went wrong.
  void end_failed(c10::MempoolId_t pool) {
    try {
      graph_.capture_end();
    } catch (const std::exception&) {
      leave(pool);
    }
  }
  /// A recording that did not begin or could not be ended leaves both allocators in it: that of the
  /// GPU could never give memory back, that of pinned memory would go on asking this object. One
  /// that ended and could not be made executable has left them, and gives their pools back itself.
  void leave(c10::MempoolId_t pool) {
    cudaGetLastError();
    if (has_ended()) return;
    const c10::DeviceIndex device = c10::cuda::current_device();
    namespace gpu = c10::cuda::CUDACachingAllocator;
    at::HostAllocator& pinned = *at::getHostAllocator(at::kCUDA);
    // One after the other, whatever of them the recording had got to.
    attempt([&] { gpu::endAllocateToPool(device, pool); });
    attempt([&] { gpu::releasePool(device, pool); });
    attempt([&] { pinned.end_allocate_to_pool(pool); });
    attempt([&] { pinned.release_pool(pool); });
  }
  bool has_ended() {
    try {
      graph_.pool();  // asserts just that
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }
  template <class Work>
  static void attempt(Work work) {
    try {
      work();
    } catch (const std::exception&) {  // it had not got there
    }
  }

  at::cuda::CUDAGraph graph_;
};

class CudaBackend final : public GpuBackend {
 public:
  int count() const override { return static_cast<int>(c10::cuda::device_count()); }

  GpuFacts facts(int device) const override {
    cudaDeviceProp properties = {};
    C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    GpuFacts facts;
    facts.name = properties.name;
    facts.major = properties.major;
    facts.minor = properties.minor;
    facts.multiprocessors = properties.multiProcessorCount;
    facts.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
    // Two transfers a clock; the attributes are in kHz.
    facts.memory_bytes_per_s = 2e3 * attribute(cudaDevAttrMemoryClockRate, device) *
                               attribute(cudaDevAttrGlobalMemoryBusWidth, device) / 8;
    facts.clock_hz = 1e3 * attribute(cudaDevAttrClockRate, device);
    int driver = 0, runtime = 0;
    C10_CUDA_CHECK(cudaDriverGetVersion(&driver));
    C10_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
    facts.driver = version_text(driver);
    facts.runtime = version_text(runtime);
    return facts;
  }

  void select(int device) const override {
    initialise();
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    // Once: work on another stream would not wait for what is under way on this one.
    if (c10::cuda::getCurrentCUDAStream() != c10::cuda::getDefaultCUDAStream()) return;
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(
        /*isHighPriority=*/false, static_cast<c10::DeviceIndex>(device)));
  }

  int current_device() const override { return c10::cuda::current_device(); }
  const KernelSet& kernels() const override { return compiled_kernels(); }
  void* current_stream() const override { return c10::cuda::getCurrentCUDAStream().stream(); }
  void synchronize() const override { c10::cuda::device_synchronize(); }

  GpuMemory memory() const override {
    initialise();
    size_t free = 0, total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
    const auto& allocated = stats.allocated_bytes[0];  // of all pools
    return {static_cast<int64_t>(free), allocated.current,
            stats.reserved_bytes[0].current - allocated.current, allocated.peak};
  }
  void reset_peak() const override {
    initialise();
    c10::cuda::CUDACachingAllocator::resetPeakStats(c10::cuda::current_device());
  }
  void release_cached_memory() const override {
    initialise();
    c10::cuda::CUDACachingAllocator::emptyCache();
  }

  std::unique_ptr<RecordedWork> record(const std::function<void()>& work) const override {
    synchronize();
    auto graph = std::make_unique<CudaGraph>();
    graph->record(work);
    return graph;
  }

  double seconds_of(const std::function<void()>& work) const override {
    const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
    cudaEvent_t begin = nullptr, end = nullptr;
    C10_CUDA_CHECK(cudaEventCreate(&begin));
    C10_CUDA_CHECK(cudaEventCreate(&end));
    C10_CUDA_CHECK(cudaEventRecord(begin, stream));
    work();
    C10_CUDA_CHECK(cudaEventRecord(end, stream));
    C10_CUDA_CHECK(cudaEventSynchronize(end));
    float milliseconds = 0;
    C10_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    C10_CUDA_CHECK(cudaEventDestroy(begin));
    C10_CUDA_CHECK(cudaEventDestroy(end));
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  /// LibTorch makes its allocators when the first tensor is; whoever asks them sooner is refused.
  static void initialise() { at::globalContext().lazyInitDevice(at::kCUDA); }
};

}  // namespace
}  // namespace sfumato

extern "C" __attribute__((visibility("default"))) const sfumato::GpuBackend* sfumato_gpu_backend(
    const char** reason) {
  if (c10::cuda::device_count() == 0) {
    *reason = "no GPU is visible here: neither a driver nor a device was found (nvidia-smi)";
    return nullptr;
  }
  // Never destroyed: tensors and recorded work outlive static objects.
  static const auto* const backend = new sfumato::CudaBackend;
  return backend;
}
