#include "train/batch_queue.h"

#include <c10/util/ParallelGuard.h>

namespace sfumato {

void BatchQueue::drop() {
  if (drawn_.valid()) drawn_.wait();
  drawn_ = {};
}

void BatchQueue::prepare(std::int64_t step, std::span<const std::int64_t> records,
                         std::int64_t physical) {
  drop();
  request_ = {step, {records.begin(), records.end()}, physical};
  drawn_ = std::async(std::launch::async, [this] {
    // One thread for this: the others belong to the batch that computes.
    const c10::ParallelGuard no_threads_of_its_own(true);
    return draw_(request_.step, request_.records, request_.physical);
  });
}

TrainingBatch BatchQueue::take(std::int64_t step, std::span<const std::int64_t> records,
                               std::int64_t physical) {
  const bool is_this =
      drawn_.valid() && request_ == Request{step, {records.begin(), records.end()}, physical};
  if (is_this) return drawn_.get();
  drop();
  return draw_(step, records, physical);
}

}  // namespace sfumato
