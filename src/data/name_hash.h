#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "sfumato/core/sha256.h"

namespace sfumato {

/// 128 bits of SHA-256, which stand for a name in tables of millions, to save memory.
using NameHash = std::array<std::uint64_t, 2>;

inline NameHash hash_of_name(std::string_view name) {
  Sha256 hash;
  hash.update(name);
  const auto digest = hash.finish();
  NameHash result;
  std::memcpy(result.data(), digest.data(), sizeof result);
  return result;
}

}  // namespace sfumato
