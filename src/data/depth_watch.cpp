#include "depth_watch.h"

#include <fmt/format.h>

#include <algorithm>

namespace sfumato {

void DepthWatch::note(const DeepSamples& samples) {
  constexpr std::int64_t kDarkBelow = 4096;
  report_.min = report_.images == 0 ? samples.min : std::min(report_.min, samples.min);
  report_.max = std::max(report_.max, samples.max);
  if (samples.max < kDarkBelow) ++report_.dark;
  ++report_.images;
}

void DepthWatch::note_record(const PixelDigest& stored, std::int32_t label) {
  if (stored_.insert(stored, label) == DuplicateTable::Seen::kDuplicate) ++report_.equal_at_8_bits;
}

std::string DepthWatch::warning(const PrepareOptions& options) const {
  if (report_.images == 0) return "";
  const std::string found = fmt::format("{} pictures have samples of 16 bits, between {} and {}",
                                        report_.images, report_.min, report_.max);
  if (options.depth_range) {
    const auto [low, high] = *options.depth_range;
    if (report_.min >= low && report_.max <= high) return "";
    return fmt::format(
        "{}; what lies outside data.depth_range={},{} is cut off. Is this the range of the device "
        "that made them?",
        found, low, high);
  }
  constexpr std::int64_t kHalf = 32768;
  const bool uses_few_bits =
      report_.max - report_.min < kHalf || 2 * report_.dark >= report_.images;
  if (!uses_few_bits && report_.equal_at_8_bits == 0) return "";
  return fmt::format(
      "{} of 0 to 65535; {} stay below 4096, and {} records became equal to another. The upper 8 "
      "bits are kept (data.depth=full), so what uses few of the 16 comes out dark or flat. If they "
      "were made with fewer bits, say so: data.depth=min_max data.depth_range=0,4095 for 12 bits, "
      "0,1023 for 10, 0,255 for 8. The two numbers are public: take them from the device or the "
      "format, not from what is found here in private pictures",
      found, report_.dark, report_.equal_at_8_bits);
}

}  // namespace sfumato
