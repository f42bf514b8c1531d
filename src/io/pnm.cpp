#include "pnm.h"

#include <fmt/format.h>

#include "byte_view.h"
#include "image_header.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

[[noreturn]] void fail_in_pnm(const std::string& name, const std::string& what) {
  throw DataError(fmt::format("'{}' is a broken PNM: {}", name, what));
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Passes over spaces and comments.
void skip_space(std::string_view bytes, std::size_t& at) {
  while (at < bytes.size() && (is_space(bytes[at]) || bytes[at] == '#')) {
    if (bytes[at] == '#')
      while (at < bytes.size() && bytes[at] != '\n' && bytes[at] != '\r') ++at;
    else
      ++at;
  }
}

/// The next number, at most `limit`.
std::int64_t next_number(std::string_view bytes, std::size_t& at, std::int64_t limit,
                         const std::string& name) {
  skip_space(bytes, at);
  const std::size_t start = at;
  std::int64_t value = 0;
  for (; at < bytes.size() && bytes[at] >= '0' && bytes[at] <= '9' && value <= limit; ++at)
    value = 10 * value + (bytes[at] - '0');
  if (at == start) fail_in_pnm(name, fmt::format("no number at byte {}", at));
  if (value > limit)
    fail_in_pnm(name, fmt::format("a number at byte {} is larger than {}", start, limit));
  return value;
}

}  // namespace

bool is_pnm(std::string_view bytes) {
  return bytes.size() > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6' &&
         (is_space(bytes[2]) || bytes[2] == '#');
}

PnmHeader read_pnm_header(std::string_view bytes, const std::string& name) {
  constexpr std::int64_t kMaxSide = 1 << 24;
  PnmHeader header;
  header.kind = bytes[1] - '0';
  std::size_t at = 2;
  header.width = next_number(bytes, at, kMaxSide, name);
  header.height = next_number(bytes, at, kMaxSide, name);
  if (header.kind != 1 && header.kind != 4) header.max_value = next_number(bytes, at, 65535, name);
  if (header.max_value < 1) fail_in_pnm(name, "its largest value is 0");
  if (header.kind > 3) {
    if (at >= bytes.size() || !is_space(bytes[at])) fail_in_pnm(name, "truncated in its header");
    ++at;
  }
  header.pixels_at = at;
  const std::int64_t row = header.kind == 4 ? (header.width + 7) / 8
                           : header.kind > 4 && header.is_deep()
                               ? 2 * header.width * header.channels()
                               : header.width * header.channels();  // text: a byte a sample or more
  if (header.height > 0 &&
      row > (std::ssize(bytes) - static_cast<std::int64_t>(at)) / header.height)
    fail_in_pnm(name, "truncated, not all pixels are there");
  return header;
}

std::vector<std::uint16_t> read_pnm_samples(std::string_view bytes, const PnmHeader& header,
                                            const std::string& name) {
  const std::int64_t row = header.width * header.channels();
  std::vector<std::uint16_t> samples(static_cast<std::size_t>(row * header.height));
  const std::int64_t largest = header.max_value, scale = header.is_deep() ? 65535 : 255;
  std::size_t at = header.pixels_at;
  for (std::int64_t i = 0; i < std::ssize(samples); ++i) {
    std::int64_t value = 0;
    if (header.kind == 1) {
      // Digits of a bitmap need no space between them, and 1 is black.
      skip_space(bytes, at);
      if (at >= bytes.size() || (bytes[at] != '0' && bytes[at] != '1'))
        fail_in_pnm(name, fmt::format("no 0 or 1 at byte {}", at));
      value = bytes[at++] == '0';
    } else if (header.kind < 4) {
      value = next_number(bytes, at, largest, name);
    } else if (header.kind == 4) {
      const std::size_t row_at = at + static_cast<std::size_t>(i / row * ((row + 7) / 8));
      const auto byte =
          static_cast<unsigned char>(bytes[row_at + static_cast<std::size_t>(i % row / 8)]);
      value = (byte >> (7 - i % row % 8) & 1) == 0;
    } else {
      const int size = header.is_deep() ? 2 : 1;
      value = static_cast<std::int64_t>(big_endian(bytes, at, size));
      at += static_cast<std::size_t>(size);
      if (value > largest)
        fail_in_pnm(name, fmt::format("a sample is {}, above {}", value, largest));
    }
    samples[static_cast<std::size_t>(i)] =
        static_cast<std::uint16_t>((value * scale + largest / 2) / largest);
  }
  return samples;
}

ImageHeader check_pnm(std::string_view bytes, const std::string& name) {
  const PnmHeader pnm = read_pnm_header(bytes, name);
  ImageHeader header;
  header.format = ImageFormat::kPnm;
  header.width = pnm.width;
  header.height = pnm.height;
  return header;
}

}  // namespace sfumato
