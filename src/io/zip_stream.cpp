#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/io/zip.h"

namespace sfumato {
namespace {

constexpr std::int64_t kLocalHeaderBytes = 30;
constexpr int kStored = 0;
constexpr int kDeflated = 8;
constexpr int kEncrypted = 1;
// A deflated byte stands for at most 1032 bytes: 258 of a match in two bits.
constexpr std::int64_t kMaxRatio = 1032;
constexpr std::int64_t kPiece = 1 << 20;

std::int64_t number16(std::string_view bytes, std::size_t at) {
  return static_cast<unsigned char>(bytes[at]) | static_cast<unsigned char>(bytes[at + 1]) << 8;
}

const char* method_name(int method) {
  switch (method) {
    case 9: return " (deflate64)";
    case 12: return " (bzip2)";
    case 14: return " (LZMA)";
    case 93: return " (Zstandard)";
    case 95: return " (xz)";
    default: return "";
  }
}

}  // namespace

struct ZipStream::State {
  std::string place;
  std::string_view packed;  ///< not read yet
  std::int64_t left = 0;    ///< bytes of content not delivered
  std::uint32_t expected_crc = 0;
  uLong crc = 0;
  bool deflated = false;
  z_stream inflater{};

  ~State() {
    if (deflated) ::inflateEnd(&inflater);
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(fmt::format("'{}' in a zip archive: {}", place, what));
  }
  std::size_t take_stored(char* out, std::size_t size) {
    std::memcpy(out, packed.data(), size);
    packed.remove_prefix(size);
    return size;
  }
  std::size_t take_deflated(char* out, std::size_t size);
  void check_end();
};

std::size_t ZipStream::State::take_deflated(char* out, std::size_t size) {
  inflater.next_out = reinterpret_cast<Bytef*>(out);
  inflater.avail_out = static_cast<uInt>(size);
  while (inflater.avail_out > 0) {
    const auto piece = std::min<std::size_t>(packed.size(), kPiece);
    inflater.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    inflater.avail_in = static_cast<uInt>(piece);
    const int status = ::inflate(&inflater, Z_NO_FLUSH);
    packed.remove_prefix(piece - inflater.avail_in);
    if (status == Z_STREAM_END) break;
    if (status == Z_BUF_ERROR || (status == Z_OK && piece == 0)) break;
    if (status != Z_OK)
      fail(fmt::format("the packed data are damaged ({})",
                       inflater.msg != nullptr ? inflater.msg : "no reason given"));
  }
  return size - inflater.avail_out;
}

/// After the last byte: nothing may follow, and the checksum must be right.
void ZipStream::State::check_end() {
  char more = 0;
  if (deflated ? take_deflated(&more, 1) > 0 : !packed.empty())
    fail("it goes on after the size that the directory states");
  if (static_cast<std::uint32_t>(crc) != expected_crc)
    fail(fmt::format("its checksum is {:08x}, the archive says {:08x}; it is damaged",
                     static_cast<std::uint32_t>(crc), expected_crc));
}

ZipStream::ZipStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
ZipStream::ZipStream(ZipStream&&) noexcept = default;
ZipStream::~ZipStream() = default;

const std::string& ZipStream::place() const { return state_->place; }

std::size_t ZipStream::read(void* out, std::size_t size) {
  State& state = *state_;
  auto* to = static_cast<char*>(out);
  std::size_t done = 0;
  while (done < size && state.left > 0) {
    const auto want = static_cast<std::size_t>(
        std::min({static_cast<std::int64_t>(size - done), state.left, kPiece}));
    const std::size_t got =
        state.deflated ? state.take_deflated(to + done, want) : state.take_stored(to + done, want);
    if (got < want)
      state.fail(fmt::format("the packed data end {} bytes early",
                             state.left - static_cast<std::int64_t>(got)));
    state.crc =
        ::crc32(state.crc, reinterpret_cast<const Bytef*>(to + done), static_cast<uInt>(got));
    state.left -= static_cast<std::int64_t>(got);
    done += got;
    if (state.left == 0) state.check_end();
  }
  return done;
}

ZipStream ZipReader::open(const ZipEntry& entry) const {
  auto state = std::make_unique<ZipStream::State>();
  state->place = fmt::format("{}:{}", path().string(), printable(entry.name));
  if ((entry.flags & kEncrypted) != 0)
    state->fail("it is encrypted; unpack the archive and name the folder instead");
  if (entry.method != kStored && entry.method != kDeflated)
    state->fail(
        fmt::format("it is packed by method {}{}; pack the archive again with deflate, or "
                    "unpack it and name the folder",
                    entry.method, method_name(entry.method)));
  const std::string_view local = bytes(entry.header, kLocalHeaderBytes, "a local header");
  const std::int64_t name_size = number16(local, 26);
  const std::int64_t data = entry.header + kLocalHeaderBytes + name_size + number16(local, 28);
  const std::string_view name =
      bytes(entry.header + kLocalHeaderBytes, name_size, "a local header");
  if (!local.starts_with("PK\3\4") || number16(local, 8) != entry.method ||
      name.find(std::string_view(entry.name).substr(entry.name.rfind('/') + 1)) ==
          std::string_view::npos)
    state->fail(
        fmt::format("the header at byte {} is not the one that the directory means", entry.header));
  state->packed = bytes(data, entry.packed_size, "a member");
  if (entry.method == kStored ? entry.size != entry.packed_size
                              : entry.size / kMaxRatio > entry.packed_size)
    state->fail(fmt::format("{} bytes cannot unpack to the {} that the directory states",
                            entry.packed_size, entry.size));
  state->left = entry.size;
  state->expected_crc = entry.crc;
  state->crc = ::crc32(0, nullptr, 0);
  if (entry.method == kDeflated) {
    if (::inflateInit2(&state->inflater, -MAX_WBITS) != Z_OK) state->fail("out of memory");
    state->deflated = true;
  }
  if (entry.size == 0) state->check_end();
  return ZipStream(std::move(state));
}

std::string ZipReader::read(const ZipEntry& entry, std::int64_t limit) const {
  ZipStream stream = open(entry);
  if (entry.size > limit)
    throw DataError(fmt::format("'{}' in a zip archive has {} bytes; at most {} are read",
                                stream.place(), entry.size, limit));
  // Grown piece by piece: a directory that lies about the size must not take the memory.
  std::string content;
  while (std::ssize(content) < entry.size) {
    const auto part = std::min<std::int64_t>(entry.size - std::ssize(content), kPiece);
    const std::size_t old_size = content.size();
    content.resize(old_size + static_cast<std::size_t>(part));
    stream.read(content.data() + old_size, static_cast<std::size_t>(part));
  }
  return content;
}

}  // namespace sfumato
