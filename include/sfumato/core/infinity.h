#pragma once
#include <limits>

namespace sfumato {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace sfumato
