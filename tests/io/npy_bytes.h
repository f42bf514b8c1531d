#pragma once
#include <string>

#include "io/zip_bytes.h"

namespace sfumato::test {

/// An .npy file of version 1 to 3 with this text as its header.
inline std::string npy_with_header(const std::string& header, const std::string& content,
                                   int version = 1) {
  return "\x93NUMPY" + std::string{static_cast<char>(version), '\0'} +
         little_endian(header.size(), version == 1 ? 2 : 4) + header + content;
}

/// As numpy.save writes it: the header is padded so that the content begins at a multiple of 64.
inline std::string make_npy(const std::string& descr, const std::string& shape,
                            const std::string& content, int version = 1) {
  std::string header =
      "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
  const std::size_t before = version == 1 ? 10 : 12;
  header.append(63 - (before + header.size()) % 64, ' ');
  return npy_with_header(header + "\n", content, version);
}

}  // namespace sfumato::test
