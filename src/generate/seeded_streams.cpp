#include "sfumato/generate/seeded_streams.h"

#include <algorithm>

#include "sfumato/core/sha256.h"

namespace sfumato {
namespace {

void add_little_endian(Sha256& hash, uint64_t value) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(value >> (8 * i));
  hash.update(bytes, sizeof bytes);
}

ChaChaNonce nonce_of(uint32_t stream, uint64_t id) {
  return {stream, static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32)};
}

}  // namespace

SeededStreams::SeededStreams(std::string_view purpose, uint64_t seed, uint64_t step) {
  Sha256 hash;
  hash.update(purpose);
  hash.update("\0", 1);
  add_little_endian(hash, seed);
  add_little_endian(hash, step);
  const auto digest = hash.finish();
  for (std::size_t i = 0; i < 8; ++i)
    key_.words[i] = static_cast<uint32_t>(digest[4 * i]) |
                    static_cast<uint32_t>(digest[4 * i + 1]) << 8 |
                    static_cast<uint32_t>(digest[4 * i + 2]) << 16 |
                    static_cast<uint32_t>(digest[4 * i + 3]) << 24;
}

void SeededStreams::normals(float* out, int64_t count, uint32_t stream, uint64_t id) const {
  chacha_gaussian_cpu(out, 0, count, key_, nonce_of(stream, id), 1.0);
}

void SeededStreams::words(uint32_t* out, int64_t first, int64_t count, uint32_t stream,
                          uint64_t id) const {
  chacha20_words_cpu(out, first, count, key_, nonce_of(stream, id));
}

double uniform_double(uint32_t low, uint32_t high) {
  const uint64_t word = (static_cast<uint64_t>(high) << 32 | low) >> 12;
  return (static_cast<double>(word) + 0.5) * 0x1p-52;
}

int64_t uniform_below(uint32_t low, uint32_t high, int64_t bound) {
  const auto value = static_cast<int64_t>(uniform_double(low, high) * static_cast<double>(bound));
  return std::min(value, bound - 1);
}

}  // namespace sfumato
