#pragma once
#include <zlib.h>

#include <cstdint>
#include <string>
#include <vector>

#include "io/deflated.h"

// Zip archives made by hand, byte for byte, so that each field can be spoilt.
namespace sfumato::test {

inline std::string little_endian(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

inline std::string raw_deflate(const std::string& bytes) { return deflated(bytes, 9, -MAX_WBITS); }

struct ZipMember {
  std::string name;
  std::string content = {};
  bool deflated = false;
  int method = -1;  ///< another number than the true one
  int flags = 0;
  std::uint32_t attributes = 0;
  int made_by = 3 << 8;           ///< Unix
  std::int64_t stated_size = -1;  ///< other than the true one
  std::int64_t crc_off_by = 0;
  bool zip64 = false;  ///< sizes and offset in the extra field
  std::int64_t offset_off_by = 0;
};

/// Members one after the other, directory, end record (and zip64's where `zip64_end`).
inline std::string make_zip(const std::vector<ZipMember>& members, bool zip64_end = false,
                            const std::string& comment = "", const std::string& prefix = "") {
  std::string body, directory;
  for (const ZipMember& m : members) {
    const std::string packed = m.deflated ? raw_deflate(m.content) : m.content;
    const auto crc = ::crc32(0, reinterpret_cast<const Bytef*>(m.content.data()),
                             static_cast<uInt>(m.content.size()));
    const std::string method = little_endian(m.method >= 0 ? m.method : m.deflated ? 8 : 0, 2);
    const std::string crc_bytes = little_endian(crc + m.crc_off_by, 4);
    const std::uint64_t size = m.stated_size >= 0 ? m.stated_size : m.content.size();
    const std::uint64_t offset = body.size() + m.offset_off_by;
    const std::string sizes =
        m.zip64 ? std::string(8, '\xFF') : little_endian(packed.size(), 4) + little_endian(size, 4);
    const std::string extra =
        m.zip64 ? little_endian(1, 2) + little_endian(24, 2) + little_endian(size, 8) +
                      little_endian(packed.size(), 8) + little_endian(offset, 8)
                : "";
    body += "PK\3\4" + little_endian(45, 2) + little_endian(m.flags, 2) + method +
            std::string(4, '\0') + crc_bytes + sizes + little_endian(m.name.size(), 2) +
            std::string(2, '\0') + m.name + packed;
    directory += "PK\1\2" + little_endian(m.made_by, 2) + little_endian(45, 2) +
                 little_endian(m.flags, 2) + method + std::string(4, '\0') + crc_bytes + sizes +
                 little_endian(m.name.size(), 2) + little_endian(extra.size(), 2) +
                 std::string(6, '\0') + little_endian(m.attributes, 4) +
                 (m.zip64 ? std::string(4, '\xFF') : little_endian(offset, 4)) + m.name + extra;
  }
  std::string end;
  if (zip64_end)
    end = "PK\6\6" + little_endian(44, 8) + little_endian(45, 2) + little_endian(45, 2) +
          std::string(8, '\0') + little_endian(members.size(), 8) +
          little_endian(members.size(), 8) + little_endian(directory.size(), 8) +
          little_endian(body.size(), 8) + "PK\6\7" + std::string(4, '\0') +
          little_endian(body.size() + directory.size(), 8) + little_endian(1, 4);
  const std::string count = zip64_end ? std::string(2, '\xFF') : little_endian(members.size(), 2);
  end += "PK\5\6" + std::string(4, '\0') + count + count +
         (zip64_end ? std::string(8, '\xFF')
                    : little_endian(directory.size(), 4) + little_endian(body.size(), 4)) +
         little_endian(comment.size(), 2) + comment;
  return prefix + body + directory + end;
}

}  // namespace sfumato::test
