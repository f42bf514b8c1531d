#include "models/dcgan/sides.h"

#include <fmt/format.h>

#include <algorithm>

namespace sfumato {

std::vector<int64_t> dcgan_sides(const GanConfig& config, int64_t sample_size, std::size_t steps) {
  std::vector<int64_t> sides = {sample_size};
  for (std::size_t i = 0; i < steps; ++i) sides.push_back((sides.back() + 1) / 2);
  if (sides.back() < 2)
    config.fail("block_out_channels",
                fmt::format("{} entries; {} pixels are halved fewer times", steps, sample_size));
  std::reverse(sides.begin(), sides.end());
  return sides;
}

}  // namespace sfumato
