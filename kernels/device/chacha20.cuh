#pragma once
// ChaCha20 (RFC 8439 section 2.3), written once for every width: Word is std::uint32_t on the GPU
// and in the scalar reference, or a vector of them (one lane per block) in the CPU twin.
#include <cstdint>

#include "kernels/device/macros.cuh"

namespace sfumato::device {

template <int kBits, class Word>
SFUMATO_DEVICE void rotate_left(Word& x) {
  x = (x << kBits) | (x >> (32 - kBits));
}

template <class Word>
SFUMATO_DEVICE void quarter_round(Word& a, Word& b, Word& c, Word& d) {
  a += b, d ^= a, rotate_left<16>(d);
  c += d, b ^= c, rotate_left<12>(b);
  a += b, d ^= a, rotate_left<8>(d);
  c += d, b ^= c, rotate_left<7>(b);
}

/// The word in every lane.
template <class Word>
SFUMATO_DEVICE Word broadcast(std::uint32_t word) {
  return Word{} + word;
}

/// x[16] := the key-stream block(s) of `counter`. The nonce is n0, n1, n2.
template <class Word>
SFUMATO_DEVICE void chacha20_block(Word (&x)[16], const std::uint32_t* key, const Word& counter,
                                   std::uint32_t n0, std::uint32_t n1, std::uint32_t n2) {
  // clang-format off
  const std::uint32_t start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574,
                                   key[0], key[1], key[2], key[3],
                                   key[4], key[5], key[6], key[7],
                                   0, n0, n1, n2};
  // clang-format on
  SFUMATO_UNROLL
  for (int i = 0; i < 16; ++i) x[i] = broadcast<Word>(start[i]);
  x[12] = counter;
#if defined(__CUDA_ARCH__)
  // Straight code has the compiler spread the additions over both integer pipes, a loop has not.
#pragma unroll
#endif
  for (int round = 0; round < 10; ++round) {
    quarter_round(x[0], x[4], x[8], x[12]);
    quarter_round(x[1], x[5], x[9], x[13]);
    quarter_round(x[2], x[6], x[10], x[14]);
    quarter_round(x[3], x[7], x[11], x[15]);
    quarter_round(x[0], x[5], x[10], x[15]);
    quarter_round(x[1], x[6], x[11], x[12]);
    quarter_round(x[2], x[7], x[8], x[13]);
    quarter_round(x[3], x[4], x[9], x[14]);
  }
  SFUMATO_UNROLL
  for (int i = 0; i < 16; ++i) x[i] += (i == 12) ? counter : broadcast<Word>(start[i]);
}

}  // namespace sfumato::device
