#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "byte_view.h"
#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/io/zip.h"

namespace sfumato {
namespace {

// Layouts are those of PKWARE's APPNOTE.TXT, 6.3.10; numbers are little-endian.
constexpr std::string_view kLocal = "PK\3\4";
constexpr std::string_view kCentral = "PK\1\2";
constexpr std::string_view kEnd = "PK\5\6";
constexpr std::string_view kEnd64 = "PK\6\6";
constexpr std::string_view kLocator64 = "PK\6\7";
constexpr std::int64_t kCentralBytes = 46;
constexpr std::int64_t kLocalBytes = 30;
constexpr std::int64_t kEndBytes = 22;
constexpr std::int64_t kEnd64Bytes = 56;
constexpr std::int64_t kLocator64Bytes = 20;
constexpr std::int64_t kMaxComment = 65535;
constexpr std::int64_t kSaturated32 = 0xFFFFFFFF;
constexpr std::int64_t kSaturated16 = 0xFFFF;

/// -1 for a number beyond int64, which no offset or size of a real file is.
std::int64_t number(std::string_view bytes, std::size_t at, std::size_t size) {
  const std::uint64_t value = little_endian(bytes, at, static_cast<int>(size));
  return value >> 63 != 0 ? -1 : static_cast<std::int64_t>(value);
}

/// Old .NET wrote backslashes, which a host of FAT (0) has as separators.
std::string clean_zip_name(std::string_view raw, bool fat_host) {
  std::string name(raw);
  if (fat_host && name.find('/') == std::string::npos) std::ranges::replace(name, '\\', '/');
  while (name.starts_with("./")) name.erase(0, 2);
  while (name.size() > 1 && name.ends_with('/')) name.pop_back();
  return name;
}

ZipEntry::Kind kind_of(std::string_view raw_name, bool fat_host, bool unix_host,
                       std::int64_t attributes) {
  if (raw_name.ends_with('/') || (fat_host && raw_name.ends_with('\\')))
    return ZipEntry::Kind::kFolder;
  const std::int64_t type = unix_host ? attributes >> 28 & 0xF : 0;  // S_IFMT of the mode
  if (type == 0x4) return ZipEntry::Kind::kFolder;
  return type == 0 || type == 0x8 ? ZipEntry::Kind::kFile : ZipEntry::Kind::kOther;
}

/// The extra field 0x0001: those of size, packed size and offset that did not fit, in this order.
bool apply_zip64(std::string_view extra, ZipEntry& entry) {
  for (std::size_t at = 0; at + 4 <= extra.size();) {
    const auto size = static_cast<std::size_t>(number(extra, at + 2, 2));
    if (at + 4 + size > extra.size()) return false;
    if (number(extra, at, 2) == 1) {
      const std::string_view field = extra.substr(at + 4, size);
      std::size_t next = 0;
      for (std::int64_t* value : {&entry.size, &entry.packed_size, &entry.header}) {
        if (*value != kSaturated32) continue;
        if (next + 8 > field.size()) return false;
        *value = number(field, next, 8);
        next += 8;
      }
      return true;
    }
    at += 4 + size;
  }
  return entry.size != kSaturated32 && entry.packed_size != kSaturated32 &&
         entry.header != kSaturated32;
}

}  // namespace

ZipReader::ZipReader(const std::filesystem::path& path) : file_(path) {
  read_directory(find_directory());
  check_overlap();
}

void ZipReader::fail(const std::string& what) const {
  throw DataError(fmt::format("zip archive '{}': {}", path().string(), what));
}

std::string_view ZipReader::bytes(std::int64_t at, std::int64_t size, const char* what) const {
  const auto total = std::ssize(file_.bytes());
  if (at < 0 || size < 0 || at > total || size > total - at)
    fail(fmt::format("{} at byte {} lies outside the file of {} bytes; it is damaged or truncated",
                     what, at, total));
  return {reinterpret_cast<const char*>(file_.bytes().data()) + at, static_cast<std::size_t>(size)};
}

/// The end record is the last one whose comment ends with the file.
ZipReader::Directory ZipReader::find_directory() const {
  const auto total = std::ssize(file_.bytes());
  const std::int64_t from = std::max<std::int64_t>(0, total - kEndBytes - kMaxComment);
  const std::string_view tail = bytes(from, total - from, "the end record");
  std::size_t at = tail.rfind(kEnd);
  while (at != std::string_view::npos) {
    if (at + kEndBytes <= tail.size() &&
        std::ssize(tail) == static_cast<std::int64_t>(at) + kEndBytes + number(tail, at + 20, 2))
      break;
    at = at == 0 ? std::string_view::npos : tail.rfind(kEnd, at - 1);
  }
  if (at == std::string_view::npos)
    fail("it has no directory at its end: truncated, or no zip; copy or download it again");
  const std::int64_t end_record = from + static_cast<std::int64_t>(at);
  const std::string_view record = tail.substr(at, kEndBytes);
  Directory directory;
  directory.end = end_record;
  directory.count = number(record, 10, 2);
  std::int64_t size = number(record, 12, 4);
  std::int64_t offset = number(record, 16, 4);
  if (number(record, 4, 2) != number(record, 6, 2) && number(record, 4, 2) != kSaturated16)
    fail("it is one part of an archive on several disks; join the parts first");
  const bool is_zip64 = find_zip64(end_record, directory, offset);
  if (is_zip64) size = directory.end - directory.begin;
  if (size < 0 || offset < 0 || size > directory.end || offset > directory.end - size)
    fail(fmt::format("its directory of {} bytes at byte {} does not fit the file", size, offset));
  directory.begin = directory.end - size;
  directory.prefix = directory.begin - offset;
  return directory;
}

bool ZipReader::find_zip64(std::int64_t end_record, Directory& directory,
                           std::int64_t& offset) const {
  const std::int64_t at = end_record - kLocator64Bytes;
  if (at < kEnd64Bytes) return false;
  const std::string_view locator = bytes(at, kLocator64Bytes, "the zip64 locator");
  if (!locator.starts_with(kLocator64)) return false;
  if (number(locator, 16, 4) > 1)
    fail("it is one part of an archive on several disks; join the parts first");
  // Bytes before the archive shift the stated place; the record then lies right before the locator.
  std::int64_t record_at = number(locator, 8, 8);
  if (record_at < 0 || record_at > at - kEnd64Bytes ||
      !bytes(record_at, 4, "the zip64 end record").starts_with(kEnd64))
    record_at = at - kEnd64Bytes;
  const std::string_view record = bytes(record_at, kEnd64Bytes, "the zip64 end record");
  if (!record.starts_with(kEnd64)) fail("its zip64 end record is damaged");
  directory.count = number(record, 32, 8);
  const std::int64_t size = number(record, 40, 8);
  offset = number(record, 48, 8);
  if (size < 0 || offset < 0 || size > record_at)
    fail(fmt::format("its zip64 end record states a directory of {} bytes at byte {}", size,
                     offset));
  directory.end = record_at;
  directory.begin = record_at - size;
  return true;
}

void ZipReader::read_directory(const Directory& directory) {
  std::int64_t at = directory.begin;
  while (at < directory.end) at += read_entry(at, directory);
  // Writers from before zip64 let the count wrap.
  if (at != directory.end || (std::ssize(entries_) != directory.count &&
                              (std::ssize(entries_) & kSaturated16) != directory.count))
    fail(fmt::format("its directory lists {} members, and its end record says {}; it is damaged",
                     entries_.size(), directory.count));
}

/// Returns the bytes of the directory that the entry takes.
std::int64_t ZipReader::read_entry(std::int64_t at, const Directory& directory) {
  const std::string_view fixed = bytes(at, kCentralBytes, "a directory entry");
  if (!fixed.starts_with(kCentral))
    fail(fmt::format("byte {} is no directory entry; the archive is damaged", at));
  const std::int64_t name_size = number(fixed, 28, 2);
  const std::int64_t extra_size = number(fixed, 30, 2);
  const std::int64_t length = kCentralBytes + name_size + extra_size + number(fixed, 32, 2);
  if (length > directory.end - at)
    fail(fmt::format("the directory entry at byte {} goes beyond the directory", at));
  const std::string_view raw_name = bytes(at + kCentralBytes, name_size, "a name");
  if (raw_name.empty() || raw_name.find('\0') != std::string_view::npos)
    fail(fmt::format("the directory entry at byte {} has no possible name", at));
  ZipEntry entry;
  const int host = static_cast<unsigned char>(fixed[5]);
  entry.name = clean_zip_name(raw_name, host == 0);
  entry.kind = kind_of(raw_name, host == 0, host == 3 || host == 19, number(fixed, 38, 4));
  entry.flags = static_cast<int>(number(fixed, 8, 2));
  entry.method = static_cast<int>(number(fixed, 10, 2));
  entry.crc = static_cast<std::uint32_t>(number(fixed, 16, 4));
  entry.packed_size = number(fixed, 20, 4);
  entry.size = number(fixed, 24, 4);
  entry.header = number(fixed, 42, 4);
  if (!apply_zip64(bytes(at + kCentralBytes + name_size, extra_size, "an extra field"), entry))
    fail(fmt::format("the zip64 sizes of '{}' are damaged", printable(entry.name)));
  const std::int64_t room = directory.begin - directory.prefix - kLocalBytes - name_size;
  if (entry.size < 0 || entry.packed_size < 0 || entry.header < 0 || entry.packed_size > room ||
      entry.header > room - entry.packed_size)
    fail(fmt::format("'{}' is said to have {} bytes at byte {}, which lie outside the archive",
                     printable(entry.name), entry.packed_size, entry.header));
  entry.header += directory.prefix;
  entries_.push_back(std::move(entry));
  return length;
}

/// Members that share bytes are how a small archive claims to unpack to petabytes.
void ZipReader::check_overlap() const {
  std::vector<std::size_t> order(entries_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return entries_[i].header; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const ZipEntry& before = entries_[order[i - 1]];
    const ZipEntry& entry = entries_[order[i]];
    if (entry.header - before.header < kLocalBytes + before.packed_size)
      fail(fmt::format("'{}' and '{}' share bytes, as no honest archive's members do",
                       printable(before.name), printable(entry.name)));
  }
}

bool looks_like_zip(std::string_view start) {
  return start.starts_with(kLocal) || start.starts_with(kEnd) || start.starts_with(kEnd64);
}

}  // namespace sfumato
