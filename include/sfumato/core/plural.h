#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace sfumato {

/// "1 session", "2 sessions", "0 sessions".
inline std::string counted(std::int64_t count, std::string_view one) {
  return std::to_string(count) + " " + std::string(one) + (count == 1 ? "" : "s");
}

}  // namespace sfumato
