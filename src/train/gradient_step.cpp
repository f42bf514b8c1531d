#include "sfumato/train/gradient_step.h"

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <numeric>
#include <utility>

#include "sfumato/grad/isolation.h"
#include "sfumato/grad/memory_meter.h"

namespace sfumato {

GradientStep::GradientStep(Objective& objective, const ClipOptions& clip,
                           const StepOptions& options)
    : objective_(objective),
      engine_(objective.parameters(), clip, options.policy, options.tuner, options.ranks),
      device_(engine_.trainable().front()->value.device()),
      recorder_(options.record && device_.is_cuda() ? find_gpu_backend() : nullptr) {}

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
  try {
    return accumulate_begun(batch, is_private);
  } catch (const c10::OutOfMemoryError&) {
    if (is_private) engine_.withdraw_batch(batch.examples);
    throw;
  }
}

BatchStatistics GradientStep::accumulate_begun(const TrainingBatch& batch, bool is_private) {
  const TrainingBatch placed = objective_.place(batch);
  const at::Tensor mask = batch.mask.to(device_);
  Recording& recording = recordings_[is_private ? 1 : 0];
  if (recording.examples != batch.examples) recording = {batch.examples, nullptr};
  BatchStatistics statistics = recorder_ != nullptr
                                   ? run_recorded(recording, placed, mask, is_private)
                                   : run(placed, mask, is_private);
  statistics.mask = batch.mask;
  return statistics;
}

/// By index: the inputs of the batch and its mask on one side, what it showed on the other.
BatchStatistics GradientStep::run_recorded(Recording& recording, const TrainingBatch& placed,
                                           const at::Tensor& mask, bool is_private) {
  if (!recording.batch) recording.batch = std::make_unique<RecordedBatch>(*recorder_);
  RecordedBatch::Tensors inputs = placed.inputs;
  inputs.push_back(mask);
  const auto work = [&](const RecordedBatch::Tensors& at_hand) {
    TrainingBatch batch = placed;
    batch.inputs.assign(at_hand.begin(), at_hand.end() - 1);
    const BatchStatistics shown = run(batch, at_hand.back(), is_private);
    return RecordedBatch::Tensors{shown.loss, shown.norm, shown.flags};
  };
  const RecordedBatch::Tensors shown = recording.batch->run(inputs, work, [&] {
    if (!is_private) make_plain_gradients();
  });
  last_was_recorded_ = recording.batch->was_replayed();
  BatchStatistics statistics;
  statistics.loss = shown[0];
  statistics.norm = shown[1];
  statistics.flags = shown[2];
  return statistics;
}

/// Gradients of plain autograd are added into what is there: recorded addresses must exist.
void GradientStep::make_plain_gradients() {
  for (Parameter* parameter : engine_.trainable())
    if (!parameter->value.grad().defined())
      parameter->value.mutable_grad() = at::zeros_like(parameter->value.detach());
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
  const bool keep = recordings_[0].batch && recordings_[0].batch->is_recorded();
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
  const GpuBackend* const recorder = std::exchange(recorder_, nullptr);
  const auto pass = [&] {
    accumulate(batch, is_private);
    if (is_private)
      engine_.discard();
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
  recorder_ = recorder;
  return bytes;
}

void GradientStep::release_memory() {
  for (Recording& recording : recordings_) recording = {};
  if (std::exchange(plain_was_taken_, false))
    for (Parameter* parameter : engine_.trainable()) parameter->value.mutable_grad() = at::Tensor{};
  if (device_.is_cuda()) find_gpu_backend()->release_cached_memory();
}

}  // namespace sfumato
