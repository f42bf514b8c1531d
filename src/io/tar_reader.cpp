#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/io/tar.h"

namespace sfumato {
namespace {

constexpr std::int64_t kBlock = 512;
constexpr std::int64_t kMaxExtensionBytes = 1 << 20;

std::string text_field(const char* field, std::size_t size) {
  return {field, ::strnlen(field, size)};
}

/// Octal digits padded by spaces or zeros, or GNU base-256; -1 if it is neither.
std::int64_t number_field(const char* field, std::size_t size) {
  if (static_cast<unsigned char>(field[0]) == 0x80) {
    std::int64_t value = 0;
    for (std::size_t i = 1; i < size; ++i) {
      if (value >> 55 != 0) return -1;
      value = value << 8 | static_cast<unsigned char>(field[i]);
    }
    return value;
  }
  std::size_t at = 0;
  while (at < size && field[at] == ' ') ++at;
  std::int64_t value = 0;
  for (; at < size && field[at] >= '0' && field[at] <= '7'; ++at)
    value = value * 8 + field[at] - '0';
  return at == size || field[at] == ' ' || field[at] == '\0' ? value : -1;
}

bool is_zero_part(const char* bytes, std::size_t size) {
  return std::all_of(bytes, bytes + size, [](char c) { return c == 0; });
}

bool is_zero_block(const char* block) { return is_zero_part(block, kBlock); }

/// The checksum counts its own field as spaces; old programs summed signed bytes.
bool checksum_matches(const char* block) {
  std::int64_t unsigned_sum = 0;
  std::int64_t signed_sum = 0;
  for (std::int64_t i = 0; i < kBlock; ++i) {
    const char c = i >= 148 && i < 156 ? ' ' : block[i];
    unsigned_sum += static_cast<unsigned char>(c);
    signed_sum += static_cast<signed char>(c);
  }
  const std::int64_t stated = number_field(block + 148, 8);
  return stated == unsigned_sum || stated == signed_sum;
}

std::string clean_tar_name(std::string name) {
  while (name.starts_with("./")) name.erase(0, 2);
  while (name.size() > 1 && name.ends_with('/')) name.pop_back();
  return name;
}

}  // namespace

TarReader::TarReader(const std::filesystem::path& path) : stream_(path) {}

void TarReader::fail(const std::string& what) const {
  throw DataError(
      fmt::format("tar archive '{}', byte {}: {}", path().string(), stream_.offset(), what));
}

std::int64_t TarReader::parse_header(const char* block, TarEntry& entry) const {
  if (!checksum_matches(block))
    fail("the header's checksum is wrong; not a tar archive or damaged");
  entry.name = text_field(block, 100);
  if (std::memcmp(block + 257, "ustar\0", 6) == 0 && block[345] != '\0')
    entry.name = text_field(block + 345, 155) + "/" + entry.name;
  const std::int64_t size = number_field(block + 124, 12);
  if (size < 0) fail("the size of member '" + entry.name + "' is not a number");
  return size;
}

std::string TarReader::read_padded(std::int64_t size) {
  if (size > kMaxExtensionBytes) fail("an extension header is implausibly large");
  std::string content(static_cast<std::size_t>(size), '\0');
  stream_.read_exact(content.data(), content.size(), "a tar extension header");
  stream_.skip((kBlock - size % kBlock) % kBlock, "tar padding");
  return content;
}

/// Records are "LENGTH KEY=VALUE\n", where LENGTH counts the whole record.
void TarReader::apply_pax(const std::string& records) {
  std::size_t at = 0;
  while (at < records.size()) {
    const std::size_t space = records.find(' ', at);
    if (space == std::string::npos) fail("broken pax header");
    const auto length = parse_int64(std::string_view(records).substr(at, space - at));
    const std::size_t left = records.size() - at;
    const std::size_t head = space - at + 1;
    if (!length || *length <= static_cast<std::int64_t>(head) ||
        *length > static_cast<std::int64_t>(left))
      fail("broken pax header");
    const std::string_view record =
        std::string_view(records).substr(space + 1, static_cast<std::size_t>(*length) - head - 1);
    const std::size_t equals = record.find('=');
    if (equals == std::string_view::npos) fail("broken pax header");
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1);
    if (key == "path") long_name_ = value;
    if (key.starts_with("GNU.sparse")) fail("sparse members are not supported");
    if (key == "size") {
      long_size_ = parse_int64(value).value_or(-1);
      if (long_size_ < 0) fail("broken size in a pax header");
    }
    at += static_cast<std::size_t>(*length);
  }
}

/// False at the end: after the last closing block that nothing but zeros follows, or where the file
/// ends between two members.
bool TarReader::read_header_block(char* block, bool between_members) {
  const std::int64_t start = stream_.offset();
  const std::size_t got = stream_.read(block, kBlock);
  if (got == 0 && between_members && start > 0) {
    end_ = End::kMissing;
    return false;
  }
  if (got != kBlock)
    fail("truncated: the closing block is missing; copy or download the archive again");
  if (!is_zero_block(block)) return true;
  std::size_t more = kBlock;
  while (more == kBlock && is_zero_block(block)) more = stream_.read(block, kBlock);
  if (more < kBlock) {
    if (more > 0 && !is_zero_part(block, more)) end_ = End::kTrailingBytes;
    return false;
  }
  if (!checksum_matches(block)) {
    end_ = End::kTrailingBytes;
    return false;
  }
  ++archives_;
  return true;
}

bool TarReader::next(TarEntry& entry) {
  stream_.skip(unread_ + padding_, "the content of a tar member");
  unread_ = padding_ = 0;
  long_name_.clear();
  long_size_ = -1;
  for (bool between_members = true; !at_end_; between_members = false) {
    std::array<char, kBlock> block;
    at_end_ = !read_header_block(block.data(), between_members);
    if (at_end_) break;
    std::int64_t size = parse_header(block.data(), entry);
    const char type = block[156];
    if (type == 'L') {
      const std::string name = read_padded(size);
      long_name_ = name.substr(0, name.find('\0'));
    } else if (type == 'x') {
      apply_pax(read_padded(size));
    } else if (type == 'K' || type == 'g') {
      read_padded(size);
    } else {
      if (type == 'S' || type == 'M') fail("sparse and multi-volume members are not supported");
      if (long_size_ >= 0) size = long_size_;
      if (!long_name_.empty()) entry.name = long_name_;
      // In archives older than ustar a folder is a file whose name ends in a slash.
      const bool is_file = type == '0' || type == '\0' || type == '7';
      const bool is_folder = type == '5' || (is_file && entry.name.ends_with('/'));
      entry.kind = is_folder ? TarEntry::Kind::kFolder
                   : is_file ? TarEntry::Kind::kFile
                             : TarEntry::Kind::kOther;
      entry.name = clean_tar_name(std::move(entry.name));
      // Links may state the size of what they point to, but carry no content.
      unread_ = type >= '1' && type <= '6' ? 0 : size;
      padding_ = (kBlock - unread_ % kBlock) % kBlock;
      entry.size = entry.kind == TarEntry::Kind::kFile ? unread_ : 0;
      return true;
    }
  }
  return false;
}

std::string TarReader::end_remark() const {
  const std::string name = path().string();
  if (end_ == End::kMissing)
    return fmt::format(
        "tar archive '{}' has no closing block: if it was cut there, members are "
        "missing",
        name);
  if (end_ == End::kTrailingBytes)
    return fmt::format(
        "tar archive '{}' is followed by bytes that are no archive; they are not "
        "read",
        name);
  if (archives_ > 1)
    return fmt::format(
        "tar archive '{}' is {} archives one after the other; all are read, though "
        "tar and other programs stop after the first",
        name, archives_);
  return "";
}

std::string TarReader::read_content(std::int64_t limit) {
  if (unread_ > limit)
    fail(fmt::format("a member has {} bytes; at most {} are read", unread_, limit));
  // Grown piece by piece: a header that lies about the size must not take the memory.
  std::string content;
  while (unread_ > 0) {
    const std::int64_t part = std::min<std::int64_t>(unread_, 1 << 20);
    const std::size_t old_size = content.size();
    content.resize(old_size + static_cast<std::size_t>(part));
    stream_.read_exact(content.data() + old_size, static_cast<std::size_t>(part),
                       "the content of a tar member");
    unread_ -= part;
  }
  return content;
}

}  // namespace sfumato
