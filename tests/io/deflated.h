#pragma once
#include <zlib.h>

#include <string>

namespace sfumato::test {

/// `window_bits` as zlib's deflateInit2 takes them: negative for no frame, above 15 for gzip's.
inline std::string deflated(const std::string& bytes, int level, int window_bits) {
  z_stream stream{};
  ::deflateInit2(&stream, level, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY);
  std::string packed(::deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ::deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

}  // namespace sfumato::test
