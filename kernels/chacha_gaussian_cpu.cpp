// One source for every instruction set: GNU vectors of 4, 8 or 16 lanes, inlined into functions
// compiled for SSE2 (or whatever the platform has), AVX2 and AVX-512.
#include "kernels/chacha_gaussian.h"

#include <string.h>  // explicit_bzero is not in <cstring>

#include <algorithm>

// A contracted multiply-add would give each instruction set its own bits.
#if defined(__clang__)
#pragma clang fp contract(off)
#pragma clang diagnostic ignored "-Wpsabi"  // wide vectors never cross a real call
#else
#pragma GCC optimize("fp-contract=off")
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#include "kernels/device/chacha20.cuh"
#include "kernels/device/normal_pair.cuh"

namespace sfumato {
namespace {

#define SFUMATO_INLINE inline __attribute__((always_inline))

template <int kLanes>
struct Vectors;
#define SFUMATO_VECTORS(lanes)                                            \
  template <>                                                             \
  struct Vectors<lanes> {                                                 \
    typedef std::uint32_t Word __attribute__((vector_size(4 * (lanes)))); \
    typedef std::int32_t Int __attribute__((vector_size(4 * (lanes))));   \
    typedef float Real __attribute__((vector_size(4 * (lanes))));         \
  }
SFUMATO_VECTORS(4);
SFUMATO_VECTORS(8);
SFUMATO_VECTORS(16);

template <int kLanes>
struct VectorOps {
  using Word = typename Vectors<kLanes>::Word;
  using Int = typename Vectors<kLanes>::Int;
  using Real = typename Vectors<kLanes>::Real;
  template <class B>
  static SFUMATO_INLINE Real mul(const Real& a, const B& b) {
    return a * b;
  }
  template <class B>
  static SFUMATO_INLINE Real add(const Real& a, const B& b) {
    return a + b;
  }
  static SFUMATO_INLINE Real sqrt(const Real& a) {
    Real root;
    for (int lane = 0; lane < kLanes; ++lane) root[lane] = __builtin_sqrtf(a[lane]);
    return root;
  }
  static SFUMATO_INLINE Real signed_real(const Word& a) {
    return __builtin_convertvector(reinterpret_cast<Int>(a), Real);
  }
  static SFUMATO_INLINE Real unsigned_real(const Word& a) {
    if constexpr (kLanes == 16) return __builtin_convertvector(a, Real);
    // Two exact halves and one rounding: what a direct conversion gives, without its instruction.
    return signed_real(a >> 16) * 65536.0f + signed_real(a & 0xffffu);
  }
  template <int kBits>
  static SFUMATO_INLINE Word arithmetic_shift_right(const Word& a) {
    return reinterpret_cast<Word>(reinterpret_cast<Int>(a) >> kBits);
  }
  static SFUMATO_INLINE Word bits(const Real& a) { return reinterpret_cast<Word>(a); }
  static SFUMATO_INLINE Real real(const Word& a) { return reinterpret_cast<Real>(a); }
  static SFUMATO_INLINE Word at_least(const Word& a, std::uint32_t b) {
    return reinterpret_cast<Word>(a >= (Word{} + b));
  }
};

/// Blocks [first, first + kLanes) of the key stream, one per lane.
template <int kLanes>
SFUMATO_INLINE void blocks(typename VectorOps<kLanes>::Word (&x)[16], const ChaChaKey& key,
                           ChaChaNonce nonce, std::uint32_t first) {
  using Word = typename VectorOps<kLanes>::Word;
  Word counter = Word{} + first;
  for (int lane = 0; lane < kLanes; ++lane) counter[lane] += static_cast<std::uint32_t>(lane);
  device::chacha20_block<Word>(x, key.words, counter, nonce.stream, nonce.step, nonce.tensor);
}

/// The 320 normals of one group.
template <int kLanes, bool kAdd>
SFUMATO_INLINE void group(float* out, std::uint32_t number, const ChaChaKey& key, ChaChaNonce nonce,
                          float scale) {
  using Ops = VectorOps<kLanes>;
  using Real = typename Ops::Real;
  for (int part = 0; part < kChaChaLanes; part += kLanes) {
    typename Ops::Word x[16] = {};
    blocks<kLanes>(x, key, nonce, number * 32 + static_cast<std::uint32_t>(part));
    Real normals[10];
    device::block_normals<Ops>(x, scale, normals);
#pragma GCC unroll 10
    for (int slot = 0; slot < 10; ++slot) {
      float* place = out + slot * kChaChaLanes + part;
      if constexpr (kAdd) {
        Real old;
        memcpy(&old, place, sizeof old);
        normals[slot] += old;
      }
      memcpy(place, &normals[slot], sizeof(Real));
    }
  }
}

template <int kLanes, bool kAdd>
SFUMATO_INLINE void gaussian(float* out, std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                             ChaChaNonce nonce, float scale) {
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t number = at / kNormalsPerGroup, offset = at % kNormalsPerGroup;
    const std::int64_t count = std::min(kNormalsPerGroup - offset, end - at);
    float* place = out + (at - begin);
    if (count == kNormalsPerGroup) {
      group<kLanes, kAdd>(place, static_cast<std::uint32_t>(number), key, nonce, scale);
    } else {
      // The ends of a range: the whole group beside, then the part asked for.
      float whole[kNormalsPerGroup];
      group<kLanes, false>(whole, static_cast<std::uint32_t>(number), key, nonce, scale);
      for (std::int64_t i = 0; i < count; ++i)
        place[i] = kAdd ? place[i] + whole[offset + i] : whole[offset + i];
      explicit_bzero(whole, sizeof whole);
    }
    at += count;
  }
}

template <int kLanes>
SFUMATO_INLINE void key_stream(std::uint32_t* out, std::int64_t first, std::int64_t count,
                               const ChaChaKey& key, ChaChaNonce nonce) {
  for (std::int64_t done = 0; done < count; done += kLanes) {
    typename VectorOps<kLanes>::Word x[16] = {};
    blocks<kLanes>(x, key, nonce, static_cast<std::uint32_t>(first + done));
    const std::int64_t lanes = std::min<std::int64_t>(kLanes, count - done);
    for (std::int64_t lane = 0; lane < lanes; ++lane)
      for (int word = 0; word < 16; ++word) out[(done + lane) * 16 + word] = x[word][lane];
  }
}

template <int kLanes>
SFUMATO_INLINE void gaussian(float* out, std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                             ChaChaNonce nonce, float scale, bool add) {
  if (add) {
    gaussian<kLanes, true>(out, begin, end, key, nonce, scale);
  } else {
    gaussian<kLanes, false>(out, begin, end, key, nonce, scale);
  }
}

void gaussian_portable(float* out, std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                       ChaChaNonce nonce, float scale, bool add) {
  gaussian<4>(out, begin, end, key, nonce, scale, add);
}
void words_portable(std::uint32_t* out, std::int64_t first, std::int64_t count,
                    const ChaChaKey& key, ChaChaNonce nonce) {
  key_stream<4>(out, first, count, key, nonce);
}

#if defined(__x86_64__)
#define SFUMATO_AVX2 __attribute__((target("avx2")))
#define SFUMATO_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl")))

SFUMATO_AVX2 void gaussian_avx2(float* out, std::int64_t begin, std::int64_t end,
                                const ChaChaKey& key, ChaChaNonce nonce, float scale, bool add) {
  gaussian<8>(out, begin, end, key, nonce, scale, add);
}
SFUMATO_AVX2 void words_avx2(std::uint32_t* out, std::int64_t first, std::int64_t count,
                             const ChaChaKey& key, ChaChaNonce nonce) {
  key_stream<8>(out, first, count, key, nonce);
}
SFUMATO_AVX512 void gaussian_avx512(float* out, std::int64_t begin, std::int64_t end,
                                    const ChaChaKey& key, ChaChaNonce nonce, float scale,
                                    bool add) {
  gaussian<16>(out, begin, end, key, nonce, scale, add);
}
SFUMATO_AVX512 void words_avx512(std::uint32_t* out, std::int64_t first, std::int64_t count,
                                 const ChaChaKey& key, ChaChaNonce nonce) {
  key_stream<16>(out, first, count, key, nonce);
}
#endif

}  // namespace

void ChaChaKey::wipe() { explicit_bzero(words, sizeof words); }

ChaChaSimd best_chacha_simd() {
#if defined(__x86_64__)
  static const ChaChaSimd best = [] {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      return ChaChaSimd::kAvx512;
    return __builtin_cpu_supports("avx2") ? ChaChaSimd::kAvx2 : ChaChaSimd::kPortable;
  }();
  return best;
#else
  return ChaChaSimd::kPortable;
#endif
}

void chacha_gaussian_cpu_with(ChaChaSimd simd, float* out, std::int64_t begin, std::int64_t end,
                              const ChaChaKey& key, ChaChaNonce nonce, double stddev, bool add) {
  const float scale = device::rounded_up(stddev);
#if defined(__x86_64__)
  if (simd == ChaChaSimd::kAvx512) return gaussian_avx512(out, begin, end, key, nonce, scale, add);
  if (simd == ChaChaSimd::kAvx2) return gaussian_avx2(out, begin, end, key, nonce, scale, add);
#endif
  gaussian_portable(out, begin, end, key, nonce, scale, add);
}

void chacha20_words_cpu_with(ChaChaSimd simd, std::uint32_t* out, std::int64_t first_block,
                             std::int64_t count, const ChaChaKey& key, ChaChaNonce nonce) {
#if defined(__x86_64__)
  if (simd == ChaChaSimd::kAvx512) return words_avx512(out, first_block, count, key, nonce);
  if (simd == ChaChaSimd::kAvx2) return words_avx2(out, first_block, count, key, nonce);
#endif
  words_portable(out, first_block, count, key, nonce);
}

void chacha_gaussian_cpu(float* out, std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                         ChaChaNonce nonce, double stddev) {
  chacha_gaussian_cpu_with(best_chacha_simd(), out, begin, end, key, nonce, stddev, false);
}

void chacha_gaussian_add_cpu(float* out, std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                             ChaChaNonce nonce, double stddev) {
  chacha_gaussian_cpu_with(best_chacha_simd(), out, begin, end, key, nonce, stddev, true);
}

void chacha20_words_cpu(std::uint32_t* out, std::int64_t first_block, std::int64_t count,
                        const ChaChaKey& key, ChaChaNonce nonce) {
  chacha20_words_cpu_with(best_chacha_simd(), out, first_block, count, key, nonce);
}

}  // namespace sfumato
