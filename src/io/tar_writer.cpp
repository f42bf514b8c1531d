#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "sfumato/core/error.h"
#include "sfumato/io/tar.h"

namespace sfumato {
namespace {

constexpr std::size_t kTarBlock = 512;
constexpr std::size_t kMaxName = 100;

/// A pax record states its own length in decimal, digits included.
std::string pax_record(std::string_view key, std::string_view value) {
  const std::size_t bare = key.size() + value.size() + 3;
  std::size_t length = bare + 1;
  while (bare + std::to_string(length).size() != length) ++length;
  return fmt::format("{} {}={}\n", length, key, value);
}

}  // namespace

void TarWriter::write_member(std::string_view name, char type, std::string_view content) {
  std::array<char, kTarBlock> block{};
  const auto put = [&](std::size_t at, const std::string& text) {
    std::memcpy(block.data() + at, text.data(), text.size());
  };
  std::memcpy(block.data(), name.data(), std::min(name.size(), kMaxName));
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  put(124, fmt::format("{:011o}", content.size()));
  put(136, "00000000000");
  put(148, "        ");
  block[156] = type;
  put(257, std::string("ustar\0"
                       "00",
                       8));
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  put(148, fmt::format("{:06o}", sum));
  block[154] = '\0';
  file_.write(block.data(), block.size());
  file_.write(content);
  const std::array<char, kTarBlock> zeros{};
  file_.write(zeros.data(), (kTarBlock - content.size() % kTarBlock) % kTarBlock);
}

void TarWriter::add(const std::string& name, std::string_view content) {
  constexpr std::size_t kMaxContent = (std::size_t{1} << 33) - 1;  // eleven octal digits
  if (name.empty() || name.find('\0') != std::string::npos || content.size() > kMaxContent)
    throw DataError(fmt::format("cannot add '{}' to tar archive '{}'", name, path_.string()));
  if (name.size() > kMaxName) write_member("PaxHeader", 'x', pax_record("path", name));
  write_member(name, '0', content);
}

void TarWriter::finish() {
  const std::array<char, 2 * kTarBlock> zeros{};
  file_.write(zeros.data(), zeros.size());
  file_.commit();
}

}  // namespace sfumato
