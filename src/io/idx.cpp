#include "sfumato/io/idx.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

std::int64_t element_size(int type) {
  switch (type) {
    case 0x08:
    case 0x09: return 1;
    case 0x0B: return 2;
    case 0x0C:
    case 0x0D: return 4;
    case 0x0E: return 8;
    default: return 0;
  }
}

}  // namespace

IdxReader::IdxReader(const std::filesystem::path& path) : stream_(path) {
  std::array<std::uint8_t, 4> magic{};
  stream_.read_exact(magic.data(), magic.size(), "the IDX magic number");
  type_ = magic[2];
  element_bytes_ = element_size(type_);
  if (magic[0] != 0 || magic[1] != 0 || element_bytes_ == 0 || magic[3] == 0 || magic[3] > 8)
    throw DataError(fmt::format(
        "'{}' is not an IDX file: it begins with {:02x} {:02x} {:02x} {:02x}, expected 00 00, a "
        "type (08 for bytes) and the number of dimensions (01 for labels, 03 for images)",
        path.string(), magic[0], magic[1], magic[2], magic[3]));
  std::int64_t total = element_bytes_;
  for (int d = 0; d < magic[3]; ++d) {
    std::array<std::uint8_t, 4> b{};
    stream_.read_exact(b.data(), b.size(), "the IDX dimensions");
    const std::int64_t size = std::int64_t{b[0]} << 24 | b[1] << 16 | b[2] << 8 | b[3];
    dimensions_.push_back(size);
    bool overflow = __builtin_mul_overflow(total, size, &total);
    if (d > 0) overflow |= __builtin_mul_overflow(record_bytes_, size, &record_bytes_);
    if (overflow || record_bytes_ > (std::int64_t{1} << 40))
      throw DataError(fmt::format("'{}' states impossible dimensions {}", path.string(),
                                  fmt::join(dimensions_, "x")));
  }
  record_bytes_ *= element_bytes_;
  check_file_size();
}

/// A plain file tells its length before anything is read; a gzip file is checked while reading.
void IdxReader::check_file_size() const {
  if (stream_.is_compressed()) return;
  std::error_code error;
  const auto actual = static_cast<std::int64_t>(std::filesystem::file_size(path(), error));
  const std::int64_t expected = stream_.offset() + count() * record_bytes_;
  if (!error && actual != expected)
    throw DataError(
        fmt::format("'{}' has {} bytes, but its dimensions {} need {}: {}", path().string(), actual,
                    fmt::join(dimensions_, "x"), expected,
                    actual < expected ? "it is truncated" : "it has extra bytes at the end"));
}

bool IdxReader::next(std::span<std::uint8_t> record) {
  if (next_ >= count()) return false;
  if (std::ssize(record) != record_bytes_)
    throw DataError(fmt::format("a record of '{}' has {} bytes, not {}", path().string(),
                                record_bytes_, record.size()));
  const std::size_t got = stream_.read(record.data(), record.size());
  if (got != record.size())
    throw DataError(
        fmt::format("'{}' is truncated: its dimensions {} promise {} records, it ends "
                    "in record {}",
                    path().string(), fmt::join(dimensions_, "x"), count(), next_));
  ++next_;
  if (next_ == count() && !stream_.at_end())
    throw DataError(
        fmt::format("'{}' has extra bytes after its {} records", path().string(), count()));
  return true;
}

bool IdxReader::next_integer(std::int64_t& value) {
  if (dimensions_.size() != 1 || type_ == 0x0D || type_ == 0x0E)
    throw DataError(
        fmt::format("'{}' holds no labels: expected one dimension of integers, found "
                    "type {:02x} with dimensions {}",
                    path().string(), type_, fmt::join(dimensions_, "x")));
  std::array<std::uint8_t, 4> bytes{};
  if (!next(std::span(bytes.data(), static_cast<std::size_t>(element_bytes_)))) return false;
  // Shifted to the top and back down, which repeats the sign bit.
  std::uint32_t bits = 0;
  for (std::int64_t i = 0; i < element_bytes_; ++i) bits = bits << 8 | bytes[i];
  const int unused = static_cast<int>(32 - 8 * element_bytes_);
  value = type_ == 0x08 ? std::int64_t{bits}
                        : std::int64_t{static_cast<std::int32_t>(bits << unused) >> unused};
  return true;
}

}  // namespace sfumato
