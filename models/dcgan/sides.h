#pragma once
#include <cstdint>
#include <vector>

#include "models/gan_config.h"

namespace sfumato {

/// Sides of the maps between the layers of a DCGAN, from the smallest to the image's: each is half
/// of the next, rounded up (28: 4, 7, 14, 28). DataError, as `config` words it, where `steps` of
/// them would leave less than 2 pixels.
std::vector<int64_t> dcgan_sides(const GanConfig& config, int64_t sample_size, std::size_t steps);

/// Kernel of the strided convolution, with a padding of 1, between a map of this side and its half:
/// 4 where the side is even, else 3.
inline int64_t dcgan_kernel(int64_t side) { return side % 2 == 0 ? 4 : 3; }

}  // namespace sfumato
