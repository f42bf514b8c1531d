#include "train/step_batches.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/privacy/bounds.h"
#include "sfumato/train/batch_loader.h"
#include "sfumato/train/physical_batch.h"

namespace sfumato {
namespace {

int64_t physical_size(const Config& config, LogicalBatch batch, bool is_private,
                      GradientStep& gradients, TrainRanks& ranks) {
  int64_t physical = config.performance.physical_batch();
  if (physical == 0) {
    const Communicator& all = *ranks.communicator();
    const c10::Device device = gradients.device();
    int64_t budget = memory_budget_bytes(config.performance.memory_budget_gib(), device);
    // What a machine can give is shared by its ranks; each has a GPU of its own.
    if (device.is_cpu() && config.performance.memory_budget_gib() <= 0) budget /= all.local_size();
    batch.ranks = all.size();
    physical = physical_batch_for(batch, budget, device,
                                  [&](int64_t b) { return gradients.peak_bytes(b, is_private); });
  }
  physical = ranks.smallest(physical);
  const double expected = config.mechanism.expected_batch_size();
  if (is_private && config.performance.physical_batch() == 0)
    while (physical > 1 && !adds_up_exactly(expected, physical, ranks.communicator()->size()))
      physical = smaller_physical_batch(physical);
  if (ranks.leads())
    log_info(fmt::format("physical batch: {} images of {} draws", physical, batch.draws));
  return physical;
}

}  // namespace

StepBatches::StepBatches(const Config& config, const RecordStore& store, const MechanismPlan& plan,
                         GradientStep& gradients, TrainRanks& ranks)
    : store_(store),
      gradients_(gradients),
      ranks_(*ranks.communicator()),
      queue_([&store, &objective = gradients.objective(),
              seed = static_cast<uint64_t>(config.run.seed())](
                 int64_t step, std::span<const int64_t> records, int64_t physical) {
        return objective.draw(load_examples(store, records, physical), seed,
                              static_cast<uint64_t>(step));
      }),
      batch_(logical_batch(config, gradients)),
      shared_size_(physical_size(config, batch_, plan.is_private, gradients, ranks)),
      physical_(shared_size_) {
  ranks.everywhere([&] {
    if (plan.is_private) check_exact_sum(plan.expected_batch_size, physical_, ranks_.size());
  });
}

const StepBatches::Sample& StepBatches::sample(const TrainingMechanism& mechanism, int64_t step) {
  if (sampled_step_ != step) {
    const std::vector<int64_t> all = mechanism.sample(step, store_.count());
    // By the size that all have agreed on, whatever became of it here: else a record could be on
    // two ranks, or on none.
    const std::span<const int64_t> own =
        share_of_rank(all, shared_size_, ranks_.rank(), ranks_.size());
    sampled_ = {{own.begin(), own.end()}, std::ssize(all)};
    sampled_step_ = step;
  }
  return sampled_;
}

StepBatches::Accumulated StepBatches::accumulate(TrainingMechanism& mechanism, int64_t step,
                                                 int64_t end) {
  const auto [records, count] = sample(mechanism, step);
  Accumulated result{count, {}};
  const auto part = [&](const std::vector<int64_t>& all, int64_t first) {
    const int64_t size = std::min(physical_, std::ssize(all) - first);
    return std::span(all).subspan(static_cast<size_t>(first), static_cast<size_t>(size));
  };
  const auto padded = [&](std::span<const int64_t> these) {
    return padded_examples(std::max<int64_t>(1, std::ssize(these)), physical_,
                           pass_sizes(gradients_.device(), batch_.in_bf16));
  };
  const auto prepare = [&](int64_t of_step, std::span<const int64_t> these) {
    queue_.prepare(of_step, these, padded(these));
  };
  // Of an empty share there is nothing to compute; the next step's first one is drawn all the same.
  if (records.empty() && step + 1 < end)
    prepare(step + 1, part(sample(mechanism, step + 1).own, 0));
  for (int64_t first = 0; first < std::ssize(records);) {
    const auto here = part(records, first);
    const TrainingBatch batch = queue_.take(step, here, padded(here));
    const int64_t next = first + std::ssize(here);
    if (next < std::ssize(records))
      prepare(step, part(records, next));
    else if (step + 1 < end)
      prepare(step + 1, part(sample(mechanism, step + 1).own, 0));
    try {
      result.statistics.push_back(mechanism.accumulate(gradients_, batch));
      first = next;
    } catch (const c10::OutOfMemoryError&) {
      // Nothing of this batch was added: the same records again, fewer at a time.
      shrink(mechanism.can_repeat_a_batch());
    }
  }
  return result;
}

void StepBatches::shrink(bool can_repeat) {
  gradients_.release_memory();
  // Once more at the same size: what others held, or an earlier phase, may have gone.
  if (can_repeat && std::exchange(size_tried_again_, physical_) != physical_) return;
  if (!can_repeat || physical_ == 1)
    throw DeviceError(fmt::format(
        "out of memory with a physical batch of {}; set a smaller performance.physical_batch or {}",
        physical_, fewer_draws(gradients_.objective().draws_setting())));
  physical_ = smaller_physical_batch(physical_);
  log_warning(
      fmt::format("out of memory: the physical batch is {} images from here on", physical_));
}

}  // namespace sfumato
