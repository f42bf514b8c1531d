#pragma once
#include <cstdint>
#include <string_view>

namespace sfumato {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720 appendix B.4 has vectors).
std::uint32_t crc32c(std::string_view bytes);

/// The form in which TFRecord files store it: rotated right by 15 bits plus 0xa282ead8, so that
/// data holding its own CRC does not look special.
std::uint32_t masked_crc32c(std::string_view bytes);

}  // namespace sfumato
