#include "sfumato/device/recorded_batch.h"

#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "sfumato/core/log.h"

namespace sfumato {
namespace {

void copy_each(const RecordedBatch::Tensors& places, const RecordedBatch::Tensors& values) {
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i].defined()) places[i].copy_(values[i]);
}

}  // namespace

RecordedBatch::Tensors RecordedBatch::run(const Tensors& inputs, const Work& work,
                                          const std::function<void()>& before_recording) {
  replayed_ = false;
  if (failed_ || ++batches_ <= kBatchesBeforeRecording) return work(inputs);
  if (!graph_ && !record(inputs, work, before_recording)) return work(inputs);
  // Before the replay: once the work is done, nothing may run out of memory.
  Tensors outputs;
  for (const at::Tensor& fixed : outputs_)
    outputs.push_back(fixed.defined() ? at::empty_like(fixed) : at::Tensor{});
  copy_each(inputs_, inputs);
  graph_->replay();
  replayed_ = true;
  copy_each(outputs, outputs_);
  return outputs;
}

bool RecordedBatch::record(const Tensors& inputs, const Work& work,
                           const std::function<void()>& before_recording) {
  try {
    for (const at::Tensor& input : inputs)
      inputs_.push_back(input.defined() ? input.clone() : at::Tensor{});
    before_recording();
    // A graph has memory of its own; what the batches before it needed goes back first.
    gpu_.release_cached_memory();
    graph_ = gpu_.record([&] { outputs_ = work(inputs_); });
    return true;
  } catch (const c10::OutOfMemoryError&) {
    clear();
    throw;
  } catch (const std::exception& error) {
    const auto* said = dynamic_cast<const c10::Error*>(&error);  // with a trace of calls
    log_warning(fmt::format("steps run without a CUDA graph, which is slower: {}",
                            said != nullptr ? said->what_without_backtrace() : error.what()));
    clear();
    failed_ = true;
    return false;
  }
}

void RecordedBatch::clear() {
  graph_.reset();
  inputs_.clear();
  outputs_.clear();
  batches_ = 0;
}

}  // namespace sfumato
