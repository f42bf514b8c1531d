#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// A portable bit, grey or pixel map (P1 to P6), decoded here because decoders differ in what they
/// make of a largest value other than 255.
struct PnmHeader {
  int kind = 0;  ///< 1 to 6
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::int64_t max_value = 1;
  std::size_t pixels_at = 0;  ///< byte where they begin

  std::int64_t channels() const { return kind == 3 || kind == 6 ? 3 : 1; }
  bool is_deep() const { return max_value > 255; }
};

/// DataError: broken, or fewer bytes than the pixels need.
PnmHeader read_pnm_header(std::string_view bytes, const std::string& name);

/// Samples [height, width, channels], scaled to 0..65535 if is_deep(), else to 0..255. The size has
/// been checked by the caller.
std::vector<std::uint16_t> read_pnm_samples(std::string_view bytes, const PnmHeader& header,
                                            const std::string& name);

}  // namespace sfumato
