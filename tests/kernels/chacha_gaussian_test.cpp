#include "kernels/chacha_gaussian.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>
#include <random>
#include <string>
#include <thread>
#include <vector>

#if !defined(__clang__)
#pragma GCC optimize("fp-contract=off")  // as the kernel: its one-lane form is compared bit by bit
#endif
#include "kernels/device/normal_pair.cuh"

namespace sfumato {
namespace {

/// Instruction sets that this processor has.
std::vector<ChaChaSimd> levels() {
  std::vector<ChaChaSimd> all{ChaChaSimd::kPortable};
  if (best_chacha_simd() >= ChaChaSimd::kAvx2) all.push_back(ChaChaSimd::kAvx2);
  if (best_chacha_simd() >= ChaChaSimd::kAvx512) all.push_back(ChaChaSimd::kAvx512);
  return all;
}

/// The key 00 01 02 ... 1f of RFC 8439.
void set_rfc_key(ChaChaKey& key) {
  for (std::uint32_t i = 0; i < 8; ++i) key.words[i] = 0x03020100 + i * 0x04040404;
}

void set_random_key(ChaChaKey& key, unsigned seed) {
  std::mt19937 generator(seed);
  for (std::uint32_t& word : key.words) word = static_cast<std::uint32_t>(generator());
}

std::vector<float> normals(std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                           ChaChaNonce nonce, double stddev = 1.0) {
  std::vector<float> out(static_cast<std::size_t>(end - begin));
  chacha_gaussian_cpu(out.data(), begin, end, key, nonce, stddev);
  return out;
}

TEST(ChaCha20, GivesTheBlockOfRfc8439Section232) {
  const std::uint32_t expected[16] = {0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3,
                                      0xc7f4d1c7, 0x0368c033, 0x9aaa2204, 0x4e6cd4c3,
                                      0x466482d2, 0x09aa9f07, 0x05d7c214, 0xa2028bd9,
                                      0xd19c12b5, 0xb94e16de, 0xe883d0cb, 0x4e3c50a2};
  ChaChaKey key;
  set_rfc_key(key);
  for (const ChaChaSimd simd : levels()) {
    std::uint32_t block[16];
    chacha20_words_cpu_with(simd, block, 1, 1, key, {0x09000000, 0x4a000000, 0});
    for (int i = 0; i < 16; ++i) EXPECT_EQ(block[i], expected[i]) << i;
  }
}

TEST(ChaCha20, EncryptsTheTextOfRfc8439Section242) {
  const std::string text =
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
      "sunscreen would be it.";
  const unsigned char expected[] = {
      0x6e, 0x2e, 0x35, 0x9a, 0x25, 0x68, 0xf9, 0x80, 0x41, 0xba, 0x07, 0x28, 0xdd, 0x0d, 0x69,
      0x81, 0xe9, 0x7e, 0x7a, 0xec, 0x1d, 0x43, 0x60, 0xc2, 0x0a, 0x27, 0xaf, 0xcc, 0xfd, 0x9f,
      0xae, 0x0b, 0xf9, 0x1b, 0x65, 0xc5, 0x52, 0x47, 0x33, 0xab, 0x8f, 0x59, 0x3d, 0xab, 0xcd,
      0x62, 0xb3, 0x57, 0x16, 0x39, 0xd6, 0x24, 0xe6, 0x51, 0x52, 0xab, 0x8f, 0x53, 0x0c, 0x35,
      0x9f, 0x08, 0x61, 0xd8, 0x07, 0xca, 0x0d, 0xbf, 0x50, 0x0d, 0x6a, 0x61, 0x56, 0xa3, 0x8e,
      0x08, 0x8a, 0x22, 0xb6, 0x5e, 0x52, 0xbc, 0x51, 0x4d, 0x16, 0xcc, 0xf8, 0x06, 0x81, 0x8c,
      0xe9, 0x1a, 0xb7, 0x79, 0x37, 0x36, 0x5a, 0xf9, 0x0b, 0xbf, 0x74, 0xa3, 0x5b, 0xe6, 0xb4,
      0x0b, 0x8e, 0xed, 0xf2, 0x78, 0x5e, 0x42, 0x87, 0x4d};
  ASSERT_EQ(sizeof expected, text.size());
  ChaChaKey key;
  set_rfc_key(key);
  for (const ChaChaSimd simd : levels()) {
    std::uint32_t stream[32];
    chacha20_words_cpu_with(simd, stream, 1, 2, key, {0, 0x4a000000, 0});
    const auto* bytes = reinterpret_cast<const unsigned char*>(stream);
    for (std::size_t i = 0; i < text.size(); ++i)
      EXPECT_EQ(static_cast<unsigned char>(text[i]) ^ bytes[i], expected[i]) << i;
  }
}

TEST(ChaCha20, BlocksDoNotDependOnTheCallThatMakesThem) {
  ChaChaKey key;
  set_random_key(key, 1);
  const std::int64_t last = std::int64_t{1} << 32;
  for (const std::int64_t first : {std::int64_t{0}, std::int64_t{12345}, last - 40}) {
    std::vector<std::uint32_t> whole(16 * 40);
    chacha20_words_cpu_with(ChaChaSimd::kPortable, whole.data(), first, 40, key, {7, 8, 9});
    for (const ChaChaSimd simd : levels())
      for (std::int64_t begin = 0; begin < 40; begin += 3)
        for (const std::int64_t count : {1, 2, 4, 5, 8, 15, 16, 17, 40}) {
          if (begin + count > 40) continue;
          std::vector<std::uint32_t> part(static_cast<std::size_t>(16 * count));
          chacha20_words_cpu_with(simd, part.data(), first + begin, count, key, {7, 8, 9});
          ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 16 * begin));
        }
  }
}

TEST(ChaChaKey, IsOverwrittenAtItsEnd) {
  alignas(ChaChaKey) unsigned char memory[sizeof(ChaChaKey)];
  auto* key = new (memory) ChaChaKey;
  set_random_key(*key, 2);
  key->~ChaChaKey();
  asm volatile("" ::: "memory");  // the bytes are looked at as they are, not as the compiler knows
  for (const unsigned char byte : memory) EXPECT_EQ(byte, 0);
}

/// Element i by the documented layout and formula, in extended precision from libm.
long double reference(std::int64_t i, const ChaChaKey& key, ChaChaNonce nonce) {
  const std::int64_t group = i / 320, slot = i % 320 / 32, lane = i % 32;
  std::uint32_t block[16];
  chacha20_words_cpu(block, 32 * group + lane, 1, key, nonce);
  const std::uint32_t* word = block + 3 * (slot / 2);
  const std::uint64_t w = std::uint64_t{word[0]} << 32 | word[1];
  const long double log_u =
      w >> 63 ? std::log1p(-std::ldexp(~w + 0.5L, -64)) : std::log(std::ldexp(w + 0.5L, -64));
  const long double angle = 2 * std::numbers::pi_v<long double> * std::ldexp(word[2] + 0.5L, -32);
  return std::sqrt(-2 * log_u) * (slot % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

/// Distance in units of the last place of the float nearest to `exact`.
double ulps(float got, long double exact) {
  const auto nearest = static_cast<float>(std::abs(exact));
  const float ulp = std::nextafter(nearest, INFINITY) - nearest;
  return static_cast<double>(std::abs(got - exact) / ulp);
}

TEST(ChaChaGaussian, IsTheFormulaToSixUlps) {
  ChaChaKey key;
  set_random_key(key, 3);
  const ChaChaNonce nonce{1, 2, 3};
  constexpr std::int64_t kCount = 320 * 500;
  const std::vector<float> got = normals(0, kCount, key, nonce);
  double worst = 0;
  for (std::int64_t i = 0; i < kCount; ++i)
    worst = std::max(worst, ulps(got[static_cast<std::size_t>(i)], reference(i, key, nonce)));
  EXPECT_LE(worst, 6.0);
  // Far into the stream the block counter needs all its bits.
  for (const std::int64_t begin : {std::int64_t{3'000'000'017}, kMaxNormalsPerStream - 700}) {
    const std::vector<float> far = normals(begin, begin + 700, key, nonce);
    for (std::int64_t i = 0; i < 700; ++i)
      ASSERT_LE(ulps(far[static_cast<std::size_t>(i)], reference(begin + i, key, nonce)), 6.0);
  }
}

TEST(ChaChaGaussian, ExtremeWordsStayOnTheFormula) {
  constexpr std::uint64_t kRootHalf = 0xb504f333f9de6484;  // sqrt(1/2) 2^64, where the code forks
  std::vector<std::uint64_t> radii{0, ~0ull, ~1ull, ~2ull, ~0xffffffffull, ~0ull << 31};
  for (std::int64_t delta = -3; delta <= 3; ++delta) {
    radii.push_back(kRootHalf + static_cast<std::uint64_t>(delta));
    radii.push_back(kRootHalf + (static_cast<std::uint64_t>(delta) << 32));
  }
  for (int bit = 0; bit < 64; ++bit)
    for (const std::uint64_t delta : {0ull, 1ull, ~0ull}) radii.push_back((1ull << bit) + delta);
  std::vector<std::uint32_t> angles;
  for (const std::uint32_t octant : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u})
    for (const std::uint32_t delta : {0u, 1u, 2u, ~0u, ~1u, 12345u, 0x0fffffffu})
      angles.push_back((octant << 29) + delta);
  for (const std::uint64_t w : radii)
    for (const std::uint32_t a : angles) {
      float cosine = 0, sine = 0;
      device::normal_pair<device::ScalarOps>(static_cast<std::uint32_t>(w >> 32),
                                             static_cast<std::uint32_t>(w), a, 1.0f, cosine, sine);
      const long double log_u =
          w >> 63 ? std::log1p(-std::ldexp(~w + 0.5L, -64)) : std::log(std::ldexp(w + 0.5L, -64));
      const long double radius = std::sqrt(-2 * log_u);
      const long double angle = 2 * std::numbers::pi_v<long double> * std::ldexp(a + 0.5L, -32);
      ASSERT_LE(ulps(cosine, radius * std::cos(angle)), 6.0) << w << " " << a;
      ASSERT_LE(ulps(sine, radius * std::sin(angle)), 6.0) << w << " " << a;
    }
  // The largest radius there is: sqrt(130 ln 2).
  float cosine = 0, sine = 0;
  device::normal_pair<device::ScalarOps>(0, 0, 0, 1.0f, cosine, sine);
  EXPECT_NEAR(cosine, 9.4926, 1e-4);
}

TEST(ChaChaGaussian, EveryInstructionSetAndTheOneLaneFormGiveTheSameBits) {
  ChaChaKey key;
  set_random_key(key, 4);
  const ChaChaNonce nonce{5, 6, 7};
  constexpr std::int64_t kGroups = 400;
  std::vector<float> scalar(kGroups * 320);
  for (std::int64_t block = 0; block < kGroups * 32; ++block) {
    std::uint32_t words[16];
    device::chacha20_block<std::uint32_t>(words, key.words, static_cast<std::uint32_t>(block),
                                          nonce.stream, nonce.step, nonce.tensor);
    float ten[10];
    device::block_normals<device::ScalarOps>(words, device::rounded_up(0.3), ten);
    for (std::int64_t slot = 0; slot < 10; ++slot)
      scalar[static_cast<std::size_t>(block / 32 * 320 + slot * 32 + block % 32)] = ten[slot];
  }
  for (const ChaChaSimd simd : levels()) {
    std::vector<float> vector(scalar.size());
    chacha_gaussian_cpu_with(simd, vector.data(), 0, kGroups * 320, key, nonce, 0.3, false);
    EXPECT_EQ(std::memcmp(vector.data(), scalar.data(), scalar.size() * sizeof(float)), 0);
  }
}

TEST(ChaChaGaussian, SplittingTheRangeChangesNoBit) {
  ChaChaKey key;
  set_random_key(key, 5);
  const ChaChaNonce nonce{1, 9, 2};
  constexpr std::int64_t kCount = 5000;
  const std::vector<float> whole = normals(0, kCount, key, nonce, 2.5);
  std::mt19937 generator(6);
  std::uniform_int_distribution<std::int64_t> place(0, kCount);
  for (int repeat = 0; repeat < 500; ++repeat) {
    std::int64_t begin = place(generator), end = place(generator);
    if (begin > end) std::swap(begin, end);
    std::vector<float> part(static_cast<std::size_t>(end - begin) + 2, -7.0f);
    for (const ChaChaSimd simd : levels()) {
      chacha_gaussian_cpu_with(simd, part.data() + 1, begin, end, key, nonce, 2.5, false);
      ASSERT_TRUE(std::equal(part.begin() + 1, part.end() - 1, whole.begin() + begin));
      ASSERT_EQ(part.front(), -7.0f);  // nothing beside the range is touched
      ASSERT_EQ(part.back(), -7.0f);
    }
  }
  std::vector<float> threaded(kCount);
  std::vector<std::thread> threads;
  for (std::int64_t part = 0; part < 3; ++part)
    threads.emplace_back([&, part] {
      const std::int64_t begin = kCount * part / 3, end = kCount * (part + 1) / 3;
      chacha_gaussian_cpu(threaded.data() + begin, begin, end, key, nonce, 2.5);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(threaded, whole);
}

TEST(ChaChaGaussian, AddingIsTheSumOfBoth) {
  ChaChaKey key;
  set_random_key(key, 7);
  constexpr std::int64_t kBegin = 100, kEnd = 2100;
  const std::vector<float> noise = normals(kBegin, kEnd, key, {1, 1, 1}, 3.0);
  for (const ChaChaSimd simd : levels()) {
    std::vector<float> sum(noise.size());
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = static_cast<float>(i) * 0.01f - 4.0f;
    std::vector<float> expected = sum;
    for (std::size_t i = 0; i < sum.size(); ++i) expected[i] += noise[i];
    chacha_gaussian_cpu_with(simd, sum.data(), kBegin, kEnd, key, {1, 1, 1}, 3.0, true);
    EXPECT_EQ(sum, expected);
  }
}

TEST(ChaChaGaussian, EveryBitOfKeyAndNonceMatters) {
  ChaChaKey key;
  set_random_key(key, 8);
  const ChaChaNonce nonce{10, 20, 30};
  const std::vector<float> first = normals(0, 320, key, nonce);
  const auto expect_unrelated = [&](const std::vector<float>& other) {
    int equal = 0;
    for (std::size_t i = 0; i < other.size(); ++i) equal += other[i] == first[i] ? 1 : 0;
    EXPECT_LE(equal, 2);
  };
  for (int bit = 0; bit < 32; ++bit) {
    const std::uint32_t flip = 1u << bit;
    for (std::uint32_t& word : key.words) {
      word ^= flip;
      expect_unrelated(normals(0, 320, key, nonce));
      word ^= flip;
    }
    expect_unrelated(normals(0, 320, key, {nonce.stream ^ flip, nonce.step, nonce.tensor}));
    expect_unrelated(normals(0, 320, key, {nonce.stream, nonce.step ^ flip, nonce.tensor}));
    expect_unrelated(normals(0, 320, key, {nonce.stream, nonce.step, nonce.tensor ^ flip}));
  }
}

TEST(ChaChaGaussian, StandardDeviationIsNeverRoundedDown) {
  for (const double stddev : {0.1, 1.0, 1.0 / 3.0, 0.7, 1e-30, 3e8, 16777217.0}) {
    const float scale = device::rounded_up(stddev);
    EXPECT_GE(static_cast<double>(scale), stddev);
    EXPECT_LE(static_cast<double>(scale), stddev * (1 + 1.3e-7));
  }
  EXPECT_EQ(device::rounded_up(0.5), 0.5f);
  ChaChaKey key;
  set_random_key(key, 9);
  for (const float x : normals(0, 700, key, {1, 1, 1}, 0.0)) EXPECT_EQ(x, 0.0f);
}

}  // namespace
}  // namespace sfumato
