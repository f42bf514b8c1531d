#include "kernels/chacha_gaussian.h"

#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "emulation/kernel_test.h"

namespace sfumato {
namespace {

using emulation::DeviceBuffer;

void set_key(ChaChaKey& key) {
  for (std::uint32_t i = 0; i < 8; ++i) key.words[i] = 0x9e3779b9u * (i + 1);
}

constexpr ChaChaNonce kNonce{3, 1000, 17};

/// begin, end: odd ends, one element, whole groups, more blocks than one, near the stream's end.
const std::vector<std::tuple<std::int64_t, std::int64_t>> kRanges = {
    {0, 1},
    {0, 320},
    {1, 320},
    {319, 321},
    {7, 33},
    {320, 640},
    {33, 4001},
    {0, 320 * 8},
    {5, 320 * 8 + 161},
    {320 * 7 + 3, 320 * 25 - 1},
    {(std::int64_t{1} << 32) - 401, (std::int64_t{1} << 32) + 399},
    {kMaxNormalsPerStream - 325, kMaxNormalsPerStream}};

TEST(EmulatedChaChaGaussian, FillsWithTheTwinsBits) {
  ChaChaKey key;
  set_key(key);
  emulation::for_each_schedule([&](std::uint64_t) {
    for (const auto& [begin, end] : kRanges) {
      SCOPED_TRACE(testing::Message() << "[" << begin << ", " << end << ")");
      DeviceBuffer<float> out(end - begin);
      EXPECT_LAUNCHED(
          launch_chacha_gaussian(out.data(), begin, end, key, kNonce, 0.37, false, nullptr));
      std::vector<float> expected(static_cast<std::size_t>(end - begin));
      chacha_gaussian_cpu(expected.data(), begin, end, key, kNonce, 0.37);
      EXPECT_TRUE(emulation::all_same_bits(out.span(), expected));
      EXPECT_TRUE(out.margins_intact());
    }
  });
}

TEST(EmulatedChaChaGaussian, AddsTheTwinsBits) {
  ChaChaKey key;
  set_key(key);
  for (const auto& [begin, end] : kRanges) {
    SCOPED_TRACE(testing::Message() << "[" << begin << ", " << end << ")");
    std::vector<float> expected = emulation::random_floats(end - begin, 5, 10.0f);
    DeviceBuffer<float> out(expected);
    EXPECT_LAUNCHED(
        launch_chacha_gaussian(out.data(), begin, end, key, kNonce, 2.5, true, nullptr));
    chacha_gaussian_add_cpu(expected.data(), begin, end, key, kNonce, 2.5);
    EXPECT_TRUE(emulation::all_same_bits(out.span(), expected));
    EXPECT_TRUE(out.margins_intact());
  }
}

TEST(EmulatedChaChaGaussian, AnEmptyRangeIsNoLaunch) {
  ChaChaKey key;
  set_key(key);
  emulation::reset_statistics();
  EXPECT_LAUNCHED(launch_chacha_gaussian(nullptr, 5, 5, key, kNonce, 1.0, true, nullptr));
  EXPECT_EQ(emulation::statistics().launches, 0);
}

}  // namespace
}  // namespace sfumato
