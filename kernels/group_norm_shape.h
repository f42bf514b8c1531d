#pragma once
#include <cstdint>

#include "kernels/element.h"
#include "kernels/layout.h"

namespace sfumato {

/// What follows the normalisation in the same pass. SiLU: z / (1 + exp(-z)).
enum class FusedActivation : std::int32_t { kNone, kSilu };

/// Group normalisation of `samples` = examples * draws; the draws of an example are consecutive.
/// groups divides channels; channels, groups, positions, draws >= 1; samples >= 0.
struct GroupNormShape {
  std::int64_t samples = 0, draws = 1, channels = 1, groups = 1, positions = 1;
  Layout layout = Layout::kChannelsLast;
  FusedActivation activation = FusedActivation::kNone;
  Element element = Element::kFloat32;

  constexpr std::int64_t per_group() const { return channels / groups; }
  constexpr std::int64_t examples() const { return samples / draws; }
};

/// How a shape is cut into blocks of 256 threads. It depends on the shape of one sample alone,
/// never on the device nor on the number of samples: a sample's result has the same bits in every
/// batch.
///   Channels last: a block has `lanes` packets of 16 bytes side by side (`width` channels;
///   `chunks` of them per row) times `rows` positions at once, and walks over `split_positions`.
///   Channels first: a warp has `split_positions` positions of one channel.
struct GroupNormPlan {
  static constexpr int kThreads = 256;
  static constexpr std::int64_t kResidentBytes = 64 << 10, kSplitBytes = 64 << 10;

  int lanes = 1, rows = 1;
  std::int64_t width = 1, chunks = 1, splits = 1, split_positions = 1;
  /// Channels last: a block holds whole groups with all of their positions, which stay in shared
  /// memory between the sums and the result: x (and dy) are read once, by one kernel.
  bool resident = false;
  std::int64_t resident_bytes = 0;
};

constexpr std::int64_t group_norm_ceil(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// `tensors`: how many a block keeps in shared memory (x: 1, x and dy: 2).
constexpr GroupNormPlan group_norm_plan(const GroupNormShape& shape, int tensors) {
  using Plan = GroupNormPlan;
  const std::int64_t size = element_size(shape.element), packet = 16 / size;
  Plan plan;
  if (shape.layout == Layout::kChannelsFirst) {
    plan.lanes = 32;
    plan.split_positions = 4096;
    plan.splits = group_norm_ceil(shape.positions, plan.split_positions);
    return plan;
  }
  // Whole groups of at least 64 bytes, on packet boundaries where the rows are.
  const bool aligned = shape.channels % packet == 0;
  std::int64_t groups = 1;
  while (groups < shape.groups && (groups * shape.per_group() * size < 64 ||
                                   (aligned && groups * shape.per_group() % packet != 0)))
    ++groups;
  plan.width = groups * shape.per_group();
  const std::int64_t lanes = group_norm_ceil(plan.width, packet);
  if (lanes <= Plan::kThreads) {
    plan.lanes = static_cast<int>(lanes);
    plan.rows = Plan::kThreads / plan.lanes;
    plan.chunks = group_norm_ceil(shape.groups, groups);
    plan.split_positions = shape.positions;
    plan.resident_bytes =
        tensors * group_norm_ceil(shape.positions, plan.rows) * Plan::kThreads * 16;
    // Few large groups would leave most of the device idle.
    if (plan.resident_bytes <= Plan::kResidentBytes &&
        (plan.chunks >= 8 || plan.resident_bytes <= Plan::kResidentBytes / 4)) {
      plan.resident = true;
      return plan;
    }
  }
  const std::int64_t packets = group_norm_ceil(shape.channels, packet);
  plan.chunks = group_norm_ceil(packets, 64);
  plan.lanes = static_cast<int>(group_norm_ceil(packets, plan.chunks));
  plan.chunks = group_norm_ceil(packets, plan.lanes);
  plan.rows = Plan::kThreads / plan.lanes;
  plan.width = plan.lanes * packet;
  plan.split_positions =
      group_norm_ceil(Plan::kSplitBytes, plan.width * size * plan.rows) * plan.rows;
  plan.splits = group_norm_ceil(shape.positions, plan.split_positions);
  plan.resident_bytes = 0;
  return plan;
}

}  // namespace sfumato
