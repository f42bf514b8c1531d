#include "sfumato/bench/kernel_benchmark.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>

#include "bench/kernel_suite.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// Twice the largest second-level cache of a GPU; on the CPU, what is read and written.
constexpr int64_t kFlushBytes = int64_t{256} << 20;

double wall_seconds(const KernelSuite::Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

const char* element_name(at::ScalarType type) { return type == at::kBFloat16 ? "bf16" : "tf32"; }

double share_of_limit(const KernelRow& row, const GpuLimits& limits) {
  const double rate = row.element == "bf16"   ? limits.bf16_flops_per_s
                      : row.element == "tf32" ? limits.tf32_flops_per_s
                                              : limits.fp32_flops_per_s;
  if (!row.measured || !(row.seconds.min > 0)) return 0;
  return least_seconds(row.flops, rate, row.bytes, limits.bytes_per_s) / row.seconds.min;
}

std::vector<KernelTotals> totals_of(const std::vector<KernelRow>& rows) {
  std::vector<KernelTotals> totals;
  std::vector<std::string> incomplete;
  for (const KernelRow& row : rows) {
    if (row.layers == 0) continue;
    if (!row.measured || !(row.library_summed_s > 0)) {
      incomplete.push_back(row.element);
      continue;
    }
    auto total = std::find_if(totals.begin(), totals.end(),
                              [&](const KernelTotals& t) { return t.element == row.element; });
    if (total == totals.end()) total = totals.insert(total, {row.element});
    const auto layers = static_cast<double>(row.layers);
    total->seconds += layers * row.seconds.min;
    total->library_summed_s += layers * row.library_summed_s;
    total->library_per_example_s += layers * row.library_per_example_s;
  }
  std::erase_if(totals, [&](const KernelTotals& t) {
    return std::find(incomplete.begin(), incomplete.end(), t.element) != incomplete.end();
  });
  return totals;
}

KernelSuite::KernelSuite(const KernelBenchmarkOptions& options)
    : options_(options),
      device_(open_device(options.device)),
      gpu_(device_.is_cuda() ? find_gpu_backend() : nullptr) {
  if (options.examples < 1 || options.draws < 1 || options.repeat < 1)
    throw UsageError("a benchmark of kernels needs at least one example, draw and run");
  flush_ = zeros({kFlushBytes / 4}, at::kFloat);
  if (gpu_ == nullptr) {
    measure_memory();
    return;
  }
  result_.limits = limits_of(gpu_->facts(gpu_->current_device()));
  // The library at its best: it tries its algorithms and may take any.
  at::Context& context = at::globalContext();
  context.setAllowTF32CuDNN(true);
  context.setAllowTF32CuBLAS(true);
  context.setBenchmarkCuDNN(true);
  context.setDeterministicCuDNN(false);
}

void KernelSuite::measure_memory() {
  // In place: every line that is written was read, as in the kernels that are held against it.
  const auto pass = [&] { flush_.add_(1); };
  pass();
  double best = wall_seconds(pass);
  for (int i = 1; i < 5; ++i) best = std::min(best, wall_seconds(pass));
  result_.limits.name = "CPU";
  result_.limits.bytes_per_s = 2.0 * static_cast<double>(kFlushBytes) / best;
}

at::Tensor KernelSuite::random(at::IntArrayRef sizes, at::ScalarType type) const {
  return at::randn(sizes, at::TensorOptions().device(device_).dtype(type));
}

at::Tensor KernelSuite::zeros(at::IntArrayRef sizes, at::ScalarType type) const {
  return at::zeros(sizes, at::TensorOptions().device(device_).dtype(type));
}

Timing KernelSuite::time(const Work& work) {
  work();
  std::vector<double> seconds;
  if (gpu_ == nullptr) {
    for (int i = 0; i < options_.repeat; ++i) seconds.push_back(wall_seconds(work));
    return summarize(std::move(seconds));
  }
  work();
  const std::unique_ptr<RecordedWork> recorded = record(work);
  const Work run = recorded ? Work([&] { recorded->replay(); }) : work;
  run();
  for (int i = 0; i < options_.repeat; ++i) {
    flush_.fill_(i);
    seconds.push_back(gpu_->seconds_of(run));
  }
  return summarize(std::move(seconds));
}

/// As training runs it. Null where a library's algorithm cannot be recorded.
std::unique_ptr<RecordedWork> KernelSuite::record(const Work& work) const {
  try {
    return gpu_->record(work);
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error&) {
    return nullptr;
  }
}

void KernelSuite::add(KernelRow row, const std::function<Work()>& prepare) {
  try {
    row.seconds = time(prepare());
    row.measured = true;
    row.share = share_of_limit(row, result_.limits);
  } catch (const c10::OutOfMemoryError&) {
    row.note = "does not fit the memory";
  }
  if (gpu_ != nullptr) gpu_->release_cached_memory();
  result_.rows.push_back(std::move(row));
}

void KernelSuite::add_on_gpu(KernelRow row, const std::function<Work()>& prepare,
                             const std::function<void(KernelRow&)>& compare) {
  if (gpu_ == nullptr) {
    row.note = "needs a GPU";
    result_.rows.push_back(std::move(row));
    return;
  }
  add(std::move(row), prepare);
  KernelRow& added = result_.rows.back();
  if (!compare || !added.measured) return;
  try {
    compare(added);
  } catch (const c10::OutOfMemoryError&) {
    added.note = "the library's way does not fit the memory";
  }
  gpu_->release_cached_memory();
}

KernelBenchmark KernelSuite::take() {
  if (gpu_ != nullptr) result_.totals = totals_of(result_.rows);
  return std::move(result_);
}

KernelBenchmark benchmark_kernels(const KernelBenchmarkOptions& options) {
  const at::NoGradGuard no_grad;
  KernelSuite suite(options);
  add_layer_kernels(suite);
  add_streaming_kernels(suite);
  add_update_kernels(suite);
  return suite.take();
}

}  // namespace sfumato
