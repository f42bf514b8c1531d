#include "generate/diffusion/timestep_grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sfumato/core/error.h"

namespace sfumato {

std::vector<int64_t> timestep_grid(int64_t total, int64_t steps, TimestepSpacing spacing,
                                   int64_t steps_offset) {
  if (steps < 1 || steps > total)
    throw UsageError(
        fmt::format("sample.steps={} is impossible with diffusion.num_train_timesteps="
                    "{}; choose 1 to {} steps",
                    steps, total, total));
  std::vector<int64_t> grid;
  const auto round = [](double t) { return static_cast<int64_t>(std::nearbyint(t)); };
  const auto whole = static_cast<double>(total);
  for (int64_t i = 0; i < steps; ++i) {
    const auto place = static_cast<double>(i);
    switch (spacing) {
      case TimestepSpacing::kLeading: grid.push_back(i * (total / steps) + steps_offset); break;
      case TimestepSpacing::kLinspace:
        grid.push_back(steps == 1 ? 0
                                  : round(place * ((whole - 1) / static_cast<double>(steps - 1))));
        break;
      case TimestepSpacing::kTrailing: {
        // The increment is what is left of it after the first addition, as in numpy.arange: it
        // decides how ties round.
        const double increment = (whole - whole / static_cast<double>(steps)) - whole;
        grid.push_back(round(whole + place * increment) - 1);
        break;
      }
    }
  }
  if (spacing != TimestepSpacing::kTrailing) std::reverse(grid.begin(), grid.end());
  if (grid.front() >= total || grid.back() < 0)
    throw UsageError(
        fmt::format("sample.steps_offset={} moves the first timestep to {}, beyond the "
                    "last one of the schedule, {}; choose a smaller offset",
                    steps_offset, grid.front(), total - 1));
  return grid;
}

std::vector<int64_t> multistep_timesteps(int64_t total, int64_t steps, TimestepSpacing spacing,
                                         int64_t steps_offset) {
  if (spacing == TimestepSpacing::kTrailing) return timestep_grid(total, steps, spacing, 0);
  if (steps >= total)
    throw UsageError(
        fmt::format("sample.steps={} is impossible for this sampler with "
                    "diffusion.num_train_timesteps={} and {} spacing; choose fewer steps than "
                    "timesteps, or sample.spacing=trailing",
                    steps, total, to_string(spacing)));
  std::vector<int64_t> grid = timestep_grid(total, steps + 1, spacing, steps_offset);
  grid.pop_back();
  return grid;
}

}  // namespace sfumato
