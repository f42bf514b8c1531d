#pragma once
#include <cstdint>
#include <string_view>

#include "kernels/chacha_gaussian.h"

namespace sfumato {

/// Reproducible randomness for what needs no secrecy: diffusion draws, augmentation, starting
/// noise of sampled images. It never feeds the privacy noise or the Poisson sampling.
///
/// Counter-based: stream (purpose, seed, step, stream, id) is ChaCha20 with
///   key = SHA-256(purpose, 0, seed, step), nonce = (stream, low and high half of id),
/// so each number depends on these names and its position alone, not on the batch it is computed
/// in, the threads, or the machine.
class SeededStreams {
 public:
  SeededStreams(std::string_view purpose, uint64_t seed, uint64_t step = 0);

  /// out[i] = i-th standard normal of the stream, i < count.
  void normals(float* out, int64_t count, uint32_t stream, uint64_t id) const;
  /// Blocks [first, first + count) of 16 uniform words each.
  void words(uint32_t* out, int64_t first, int64_t count, uint32_t stream, uint64_t id) const;

 private:
  ChaChaKey key_;
};

/// Uniform in (0, 1) from two words: (w + 1/2) 2^-52 of the upper 52 bits, never 0 or 1.
double uniform_double(uint32_t low, uint32_t high);
/// Uniform among 0 .. bound - 1, from the same two words.
int64_t uniform_below(uint32_t low, uint32_t high, int64_t bound);

}  // namespace sfumato
