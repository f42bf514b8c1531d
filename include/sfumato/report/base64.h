#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace sfumato {

/// Base64 with padding and no line breaks (RFC 4648 section 4).
std::string base64(std::span<const std::byte> bytes);

}  // namespace sfumato
