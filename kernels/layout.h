#pragma once
#include <cstdint>

namespace sfumato {

/// Where the channels of a tensor are: [N, C, S] or [N, S, C], S positions (height times width).
enum class Layout : std::int32_t { kChannelsFirst, kChannelsLast };

}  // namespace sfumato
