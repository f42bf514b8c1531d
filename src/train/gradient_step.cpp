#include "sfumato/train/gradient_step.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <numeric>

#include "sfumato/core/log.h"
#include "sfumato/grad/isolation.h"
#include "sfumato/grad/memory_meter.h"

namespace sfumato {
namespace {

/// Batches that run step by step before one is recorded: libraries choose their algorithms and the
/// allocator finds its sizes.
constexpr int64_t kBatchesBeforeRecording = 2;

void copy_into(at::Tensor& place, const at::Tensor& value) {
  if (value.defined()) place.copy_(value);
}

}  // namespace

/// A physical batch at fixed addresses and the work on it as a graph.
struct GradientStep::Recording {
  TrainingBatch batch;
  at::Tensor mask;
  BatchStatistics statistics;  ///< of the last replay, overwritten by the next
  std::unique_ptr<RecordedWork> work;
  int64_t examples = 0, batches = 0;
  bool failed = false;
};

GradientStep::GradientStep(Objective& objective, const ClipOptions& clip,
                           const StepOptions& options)
    : objective_(objective),
      engine_(objective.parameters(), clip, options.policy, options.tuner, options.ranks),
      device_(engine_.trainable().front()->value.device()),
      record_(options.record && device_.is_cuda()) {}

GradientStep::~GradientStep() = default;

/// `mask` on the device.
BatchStatistics GradientStep::run(const TrainingBatch& placed, const at::Tensor& mask,
                                  bool is_private) {
  if (!is_private) return plain(placed, mask);
  return engine_.accumulate_checked(placed.examples, objective_.draws(), mask,
                                    [&](Tape& tape) { return objective_.losses(placed, &tape); });
}

BatchStatistics GradientStep::plain(const TrainingBatch& placed, const at::Tensor& mask) {
  BatchStatistics statistics;
  const at::Tensor losses = objective_.losses(placed, nullptr);
  statistics.loss = losses.detach();
  statistics.norm = at::zeros({placed.examples}, losses.options().dtype(at::kDouble));
  losses.backward(mask);
  return statistics;
}

BatchStatistics GradientStep::accumulate(const TrainingBatch& batch, bool is_private) {
  last_was_recorded_ = false;
  if (is_private)
    engine_.begin_batch(batch.examples, batch.mask);
  else
    begin_plain();
  const TrainingBatch placed = objective_.place(batch);
  const at::Tensor mask = batch.mask.to(device_);
  std::unique_ptr<Recording>& slot = recordings_[is_private ? 1 : 0];
  if (!slot || slot->examples != batch.examples) {
    slot = std::make_unique<Recording>();
    slot->examples = batch.examples;
  }
  Recording& recording = *slot;
  BatchStatistics statistics;
  if (!record_ || recording.failed || ++recording.batches <= kBatchesBeforeRecording) {
    statistics = run(placed, mask, is_private);
  } else {
    statistics = replay(recording, placed, mask, is_private);
  }
  statistics.mask = batch.mask;
  return statistics;
}

BatchStatistics GradientStep::replay(Recording& recording, const TrainingBatch& placed,
                                     const at::Tensor& mask, bool is_private) {
  const GpuBackend& gpu = *find_gpu_backend();
  if (!recording.work) {
    recording.batch = placed;
    for (at::Tensor& input : recording.batch.inputs)
      if (input.defined()) input = input.clone();
    recording.mask = mask.clone();
    // Gradients of plain autograd are added into what is there: recorded addresses must exist.
    if (!is_private)
      for (Parameter* parameter : engine_.trainable())
        if (!parameter->value.grad().defined())
          parameter->value.mutable_grad() = at::zeros_like(parameter->value.detach());
    // A graph has memory of its own; what the batches before it needed goes back first.
    gpu.release_cached_memory();
    try {
      recording.work = gpu.record([&] {
        recording.statistics = run(recording.batch, recording.mask, is_private);
      });
    } catch (const c10::OutOfMemoryError&) {
      recording = {};
      throw;
    } catch (const std::exception& error) {
      const auto* said = dynamic_cast<const c10::Error*>(&error);  // with a trace of calls
      log_warning(fmt::format("steps run without a CUDA graph, which is slower: {}",
                              said != nullptr ? said->what_without_backtrace() : error.what()));
      recording = {};
      recording.examples = placed.examples;
      recording.failed = true;
      return run(placed, mask, is_private);
    }
  }
  // Before the replay: once the sum has grown, nothing may run out of memory.
  const BatchStatistics& fixed = recording.statistics;
  BatchStatistics statistics;
  statistics.loss = at::empty_like(fixed.loss);
  statistics.norm = at::empty_like(fixed.norm);
  if (fixed.flags.defined()) statistics.flags = at::empty_like(fixed.flags);
  for (size_t i = 0; i < placed.inputs.size(); ++i)
    copy_into(recording.batch.inputs[i], placed.inputs[i]);
  copy_into(recording.mask, mask);
  recording.work->replay();
  last_was_recorded_ = true;
  statistics.loss.copy_(fixed.loss);
  statistics.norm.copy_(fixed.norm);
  copy_into(statistics.flags, fixed.flags);
  return statistics;
}

BatchStatistics GradientStep::accumulate_private(const TrainingBatch& batch) {
  return accumulate(batch, /*is_private=*/true);
}

BatchStatistics GradientStep::accumulate_plain(const TrainingBatch& batch) {
  return accumulate(batch, /*is_private=*/false);
}

/// Gradients at recorded addresses that were taken: whatever their taker left, they start at zero.
void GradientStep::begin_plain() {
  if (!std::exchange(plain_was_taken_, false)) return;
  for (Parameter* parameter : engine_.trainable())
    if (parameter->value.grad().defined()) parameter->value.mutable_grad().zero_();
}

std::vector<at::Tensor> GradientStep::take_plain() {
  std::vector<at::Tensor> sums;
  plain_was_taken_ = true;
  const bool keep = recordings_[0] && recordings_[0]->work;
  for (Parameter* parameter : engine_.trainable()) {
    at::Tensor& grad = parameter->value.mutable_grad();
    // A recorded graph adds to these addresses: they stay.
    sums.push_back(grad.defined() ? grad : at::zeros_like(parameter->value.detach()));
    if (!keep) grad = at::Tensor{};
  }
  return sums;
}

void GradientStep::verify() {
  verify_isolation(engine_, objective_.draws(), [&](Tape& tape, int variant) {
    const uint64_t keys[] = {0, 1 + static_cast<uint64_t>(variant)};
    return objective_.losses(objective_.place(synthetic_batch(objective_, keys)), &tape);
  });
}

int64_t GradientStep::peak_bytes(int64_t examples, bool is_private) {
  std::vector<uint64_t> keys(static_cast<size_t>(examples));
  std::iota(keys.begin(), keys.end(), uint64_t{0});
  const TrainingBatch batch = synthetic_batch(objective_, keys);
  const bool record = std::exchange(record_, false);
  const auto pass = [&] {
    accumulate(batch, is_private);
    if (is_private)
      (void)take_private();
    else
      (void)take_plain();
  };
  int64_t bytes = 0;
  if (device_.is_cuda()) {
    const GpuBackend& gpu = *find_gpu_backend();
    pass();  // measures layers, which takes memory of its own
    gpu.synchronize();
    gpu.reset_peak();
    const int64_t before = gpu.memory().allocated;
    pass();
    gpu.synchronize();
    bytes = gpu.memory().peak - before;
  } else {
    const MemoryMeter meter;
    pass();
    bytes = meter.peak_bytes();
  }
  record_ = record;
  return bytes;
}

void GradientStep::release_memory() {
  for (std::unique_ptr<Recording>& recording : recordings_) recording.reset();
  if (std::exchange(plain_was_taken_, false))
    for (Parameter* parameter : engine_.trainable()) parameter->value.mutable_grad() = at::Tensor{};
  if (device_.is_cuda()) find_gpu_backend()->release_cached_memory();
}

bool GradientStep::recorded() const { return last_was_recorded_; }

}  // namespace sfumato
