#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "sfumato/device/gpu.h"

namespace sfumato {

/// Work on batches of one shape, recorded once (a CUDA graph) and replayed: what starts its kernels
/// is then done by the GPU alone. Batches go to the addresses of the recording, and results come
/// from there, as lists of tensors whose meaning is the caller's.
class RecordedBatch {
 public:
  using Tensors = std::vector<at::Tensor>;
  /// From inputs to outputs. Both are the same in number, shapes and types in every call, and the
  /// same of them are undefined. What else it writes to must stay at its address, and it must not
  /// wait for the GPU.
  using Work = std::function<Tensors(const Tensors& inputs)>;
  /// Batches that run as they are before one is recorded: libraries choose their algorithms and the
  /// allocator finds its sizes.
  static constexpr int64_t kBatchesBeforeRecording = 2;

  /// `gpu` must outlive it.
  explicit RecordedBatch(const GpuBackend& gpu) : gpu_(gpu) {}

  /// The outputs of `work` on `inputs`, which belong to the caller. `before_recording` runs once,
  /// before the recording starts: it makes what the recording will write to. Where a recording
  /// fails, this batch and all after it run as they are, which is told once as a warning.
  /// c10::OutOfMemoryError where memory runs out, also for the recording: then nothing of it is
  /// left, the work has not been done, and the next batches start over.
  Tensors run(const Tensors& inputs, const Work& work,
              const std::function<void()>& before_recording);

  /// Whether a recording is kept, with its memory and addresses.
  bool is_recorded() const { return graph_ != nullptr; }
  /// Whether the last batch was a replay.
  bool was_replayed() const { return replayed_; }

 private:
  bool record(const Tensors& inputs, const Work& work,
              const std::function<void()>& before_recording);
  void clear();

  const GpuBackend& gpu_;
  Tensors inputs_, outputs_;  ///< of the recording; outputs are overwritten by the next replay
  std::unique_ptr<RecordedWork> graph_;
  int64_t batches_ = 0;
  bool failed_ = false, replayed_ = false;
};

}  // namespace sfumato
