#include "sfumato/io/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "npy_header.h"
#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"
#include "sfumato/io/gzip_stream.h"

namespace sfumato {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::uint32_t kMaxHeader = 1 << 20;

/// The length if it can be known without unpacking, else -1.
std::int64_t plain_size(const GzipStream& stream) {
  std::error_code error;
  const auto size = std::filesystem::file_size(stream.path(), error);
  return stream.is_compressed() || error ? -1 : static_cast<std::int64_t>(size);
}

/// Of one Unicode scalar value; false for a surrogate or a number beyond Unicode.
bool append_utf8(std::uint32_t c, std::string& out) {
  if (c >= 0x110000 || (c >= 0xD800 && c < 0xE000)) return false;
  const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
  return true;
}

}  // namespace

NpyReader::NpyReader(ByteSource source, std::int64_t bytes, std::string place)
    : source_(std::move(source)), bytes_(bytes), place_(std::move(place)) {
  read_header();
}

NpyReader::NpyReader(const std::filesystem::path& file) : place_(file.string()) {
  const auto stream = std::make_shared<GzipStream>(file);
  source_ = [stream](void* out, std::size_t size) { return stream->read(out, size); };
  bytes_ = plain_size(*stream);
  read_header();
}

void NpyReader::fail(const std::string& what) const {
  throw DataError(fmt::format("numpy array '{}': {}", place_, what));
}

void NpyReader::read_exact(void* out, std::size_t size, const char* what) {
  const std::size_t got = source_(out, size);
  if (got != size)
    fail(fmt::format("it is truncated: {} needs {} bytes, {} are left", what, size, got));
}

void NpyReader::read_header() {
  std::array<unsigned char, 8> start{};
  const std::size_t got = source_(start.data(), start.size());
  if (got != start.size() || std::memcmp(start.data(), kMagic.data(), kMagic.size()) != 0)
    fail("it does not begin as an .npy file does");
  const int version = start[6];
  if (version < 1 || version > 3 || start[7] != 0)
    fail(fmt::format("it has version {}.{} of the .npy format; 1.0, 2.0 and 3.0 are read", start[6],
                     start[7]));
  std::array<unsigned char, 4> length{};
  const std::size_t length_bytes = version == 1 ? 2 : 4;
  read_exact(length.data(), length_bytes, "the header's length");
  const std::uint32_t size =
      length[0] | length[1] << 8 | length[2] << 16 | static_cast<std::uint32_t>(length[3]) << 24;
  if (size > kMaxHeader) fail(fmt::format("it claims a header of {} bytes", size));
  std::string text(size, '\0');
  read_exact(text.data(), text.size(), "the header");
  header_bytes_ = static_cast<std::int64_t>(start.size() + length_bytes + size);
  apply_header(text);
  check_size();
}

void NpyReader::apply_header(const std::string& text) {
  NpyHeader header;
  if (const std::string defect = parse_npy_header(text, header); !defect.empty()) fail(defect);
  apply_type(header.descr);
  shape_ = header.shape;
  if (shape_.empty()) fail("it is a single number, not a list of images or labels");
  const auto extended = std::ranges::count_if(shape_, [](std::int64_t size) { return size != 1; });
  if (header.fortran_order && extended > 1)
    fail("it is in Fortran order; save numpy.ascontiguousarray(...) of it");
  record_bytes_ = item_bytes_;
  std::int64_t total = item_bytes_;
  bool overflow = false;
  for (std::size_t d = 0; d < shape_.size(); ++d) {
    overflow |= __builtin_mul_overflow(total, shape_[d], &total);
    if (d > 0) overflow |= __builtin_mul_overflow(record_bytes_, shape_[d], &record_bytes_);
  }
  if (overflow || record_bytes_ > (std::int64_t{1} << 40))
    fail(fmt::format("it states an impossible shape {}", fmt::join(shape_, "x")));
}

/// Byte order, kind and size: "<i8", "|u1", ">U5".
void NpyReader::apply_type(const std::string& descr) {
  std::string_view rest = descr;
  char order = '|';
  if (!rest.empty() && std::string_view("<>|=").find(rest[0]) != std::string_view::npos) {
    order = rest[0];
    rest.remove_prefix(1);
  }
  const char kind = rest.empty() ? '?' : rest[0];
  if (kind == 'O') fail("it holds Python objects, which are not read; save plain numbers");
  const auto size = parse_int64(rest.substr(std::min<std::size_t>(1, rest.size())));
  const bool known = std::string_view("biufcmMUSV").find(kind) != std::string_view::npos;
  if (!known || !size || *size < 0 || *size > (1 << 20))
    fail(fmt::format("its type '{}' is unknown", printable(descr)));
  if ((kind == 'i' || kind == 'u') && *size != 1 && *size != 2 && *size != 4 && *size != 8)
    fail(fmt::format("its type '{}' is unknown", printable(descr)));
  if (kind == 'b' && *size != 1) fail(fmt::format("its type '{}' is unknown", printable(descr)));
  type_ = rest;
  big_endian_ = order == '>';
  item_bytes_ = kind == 'U' ? 4 * *size : *size;
}

void NpyReader::check_size() {
  const std::int64_t needed = header_bytes_ + count() * record_bytes_;
  if (bytes_ >= 0 && bytes_ != needed)
    fail(fmt::format("it has {} bytes, and its shape {} of type {} needs {}: {}", bytes_,
                     fmt::join(shape_, "x"), type_, needed,
                     bytes_ < needed ? "it is truncated" : "extra bytes follow"));
}

bool NpyReader::next(std::span<std::uint8_t> record) {
  if (next_ >= count()) return false;
  if (std::ssize(record) != record_bytes_)
    fail(fmt::format("a record has {} bytes, not {}", record_bytes_, record.size()));
  if (source_(record.data(), record.size()) != record.size())
    fail(fmt::format("it is truncated: its shape {} promises {} records, it ends in record {}",
                     fmt::join(shape_, "x"), count(), next_));
  ++next_;
  char more = 0;
  if (next_ == count() && source_(&more, 1) != 0) fail("extra bytes follow its last record");
  return true;
}

bool NpyReader::has_integers() const {
  return record_bytes_ == item_bytes_ && (type_[0] == 'i' || type_[0] == 'u' || type_[0] == 'b');
}

bool NpyReader::has_text() const {
  return record_bytes_ == item_bytes_ && (type_[0] == 'U' || type_[0] == 'S') && item_bytes_ > 0;
}

bool NpyReader::next_integer(std::int64_t& value) {
  if (!has_integers()) fail(fmt::format("type {} is no integer", type_));
  std::array<std::uint8_t, 8> bytes{};
  const auto size = static_cast<std::size_t>(item_bytes_);
  if (!next(std::span(bytes.data(), size))) return false;
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < size; ++i) bits = bits << 8 | bytes[big_endian_ ? i : size - 1 - i];
  if (type_[0] != 'i') {
    if (bits >> 63 != 0) fail(fmt::format("label {} is {}, too large", next_ - 1, bits));
    value = static_cast<std::int64_t>(bits);
  } else {
    // Shifted to the top and back down, which repeats the sign bit.
    const auto unused = static_cast<int>(64 - 8 * size);
    value = static_cast<std::int64_t>(bits << unused) >> unused;
  }
  return true;
}

bool NpyReader::next_text(std::string& value) {
  if (!has_text()) fail(fmt::format("type {} is no text", type_));
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(item_bytes_));
  if (!next(bytes)) return false;
  value.clear();
  if (type_[0] == 'S') {
    value.assign(bytes.begin(), bytes.end());
    while (value.ends_with('\0')) value.pop_back();
    return true;
  }
  for (std::size_t at = 0; at < bytes.size(); at += 4) {
    std::uint32_t c = 0;
    for (std::size_t i = 0; i < 4; ++i) c = c << 8 | bytes[at + (big_endian_ ? i : 3 - i)];
    if (!append_utf8(c, value)) fail(fmt::format("text {} is no Unicode", next_ - 1));
  }
  while (value.ends_with('\0')) value.pop_back();
  return true;
}

}  // namespace sfumato
