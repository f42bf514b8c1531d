// The Gram norms are never below the gradients' norms, and above them by little.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "emulation/gram_norm_truth.h"
#include "kernels/gram_norm.h"

namespace sfumato::emulation {
namespace {

/// Tokens in pairs whose terms cancel but for `rest`, in a random order.
void cancel(std::vector<float>& x, std::vector<float>& dy, std::int64_t tokens, std::int64_t in,
            std::int64_t out, float rest, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<std::int64_t> order(at(tokens));
  for (std::int64_t t = 0; t < tokens; ++t) order[at(t)] = t;
  std::shuffle(order.begin(), order.end(), generator);
  for (std::int64_t pair = 0; pair + 1 < tokens; pair += 2) {
    const std::int64_t t = order[at(pair)], s = order[at(pair + 1)];
    for (std::int64_t c = 0; c < in; ++c) x[at(s * in + c)] = x[at(t * in + c)];
    for (std::int64_t p = 0; p < out; ++p) dy[at(s * out + p)] = -dy[at(t * out + p)] * (1 - rest);
  }
}

TEST(GramNorm, NeverBelowTheGradientWhereTokensCancel) {
  for (const Element in : kElements)
    for (const std::int64_t tokens : {2, 20, 100})
      for (const float rest : {0.0f, 1e-7f, 1e-6f, 1e-5f, 1e-4f, 1e-3f})
        for (const bool alike : {false, true})
          for (const float mean : {0.0f, 3.0f}) {
            SCOPED_TRACE(testing::Message() << tokens << " tokens, rest " << rest);
            constexpr std::int64_t kIn = 100, kOut = 45;
            const ConvShape shape = linear(1, tokens, kIn, kOut);
            auto x = random_floats(tokens * kIn, 5), dy = random_floats(tokens * kOut, 6);
            if (alike) {  // but for the sign: partial sums grow before they vanish
              for (std::size_t i = kIn; i < x.size(); ++i) x[i] = x[i - kIn];
              for (std::size_t i = kOut; i < dy.size(); ++i) dy[i] = dy[i - kOut];
            }
            for (float& v : x) v += mean;
            cancel(x, dy, tokens, kIn, kOut, rest, 7);
            const auto xs = as_stored(x, in), dys = as_stored(dy, in);
            const Truth truth = truth_of(xs, dys, shape)[0];
            const double got = kernel(x, dy, in, shape)[0];
            EXPECT_GE(got, truth.squared);
            EXPECT_GE(got, truth.squared_float);
            EXPECT_LE(got, truth.squared + 2 * most_floors(truth, in, shape));
          }
}

TEST(GramNorm, NeverBelowTheGradientWhereDrawsOfAConvolutionCancel) {
  for (const Element in : kElements)
    for (const float rest : {0.0f, 1e-7f, 1e-5f, 1e-3f}) {
      const ConvShape shape = conv(1, 2, {9, 8}, {20, 12}, {3, 3}, {1, 1}, {1, 1});
      auto x = random_floats(x_count(shape), 8), dy = random_floats(dy_count(shape), 9);
      std::copy_n(x.begin(), x.size() / 2, x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2));
      for (std::size_t i = 0; i < dy.size() / 2; ++i) dy[dy.size() / 2 + i] = -dy[i] * (1 - rest);
      const Truth truth = truth_of(as_stored(x, in), as_stored(dy, in), shape)[0];
      const double got = kernel(x, dy, in, shape)[0];
      EXPECT_GE(got, truth.squared);
      EXPECT_GE(got, truth.squared_float);
      EXPECT_LE(got, truth.squared + 2 * most_floors(truth, in, shape));
    }
}

TEST(GramNorm, NeverBelowTheGradientWhereEntriesUnderflow) {
  for (const Element in : kElements)
    for (const float scale : {1e-3f, 1e-10f, 1e-20f, 1e-30f, 1e-38f})
      for (const bool small_x : {false, true}) {
        const ConvShape shape = linear(1, 9, 5, 6);
        const auto x = random_floats(x_count(shape), 10, small_x ? scale : 1e3f);
        const auto dy = random_floats(dy_count(shape), 11, small_x ? 1e3f : scale);
        const Truth truth = truth_of(as_stored(x, in), as_stored(dy, in), shape)[0];
        EXPECT_GT(truth.squared, 0);
        EXPECT_GE(kernel(x, dy, in, shape)[0], truth.squared) << scale;
      }
}

TEST(GramNorm, FloorsAreSmallWhereNothingCancels) {
  const Element in = Element::kBfloat16;
  EXPECT_LT(gram_entry_error(Element::kFloat32, 512, 1), gram_entry_error(in, 512, 1));
  for (const std::int64_t tokens : {256, 1024}) {
    const ConvShape shape = linear(1, tokens, 512, 512);
    const auto x = random_floats(x_count(shape), 12), dy = random_floats(dy_count(shape), 13);
    const Truth truth = truth_of(as_stored(x, in), as_stored(dy, in), shape)[0];
    const double norm = std::sqrt(truth.squared), got = std::sqrt(twin(x, dy, in, shape)[0]);
    EXPECT_GE(got, norm);
    EXPECT_LE(got, norm * (1 + (tokens == 256 ? 1.5e-3 : 8e-3)));
  }
}

/// What a float32 accumulator holds that cuts off what lies below its last place, after each term.
float accumulated_by_cutting(const std::vector<float>& terms) {
  float sum = 0;
  for (const float term : terms) {
    const double exact = static_cast<double>(sum) + static_cast<double>(term);
    float next = static_cast<float>(exact);
    if (std::fabs(static_cast<double>(next)) > std::fabs(exact)) next = std::nextafter(next, 0.0f);
    sum = next;
  }
  return sum;
}

TEST(GramNorm, NeverBelowAGradientWhoseSumIsCutAndNotRounded) {
  // One channel: the terms grow to a large sum and take it back, and all cuts point one way. They
  // grow with the number of terms: 8 times its root, which would do for errors that are rounded at
  // random, is passed by some thousands of them.
  for (const Element in : kElements) {
    for (const std::int64_t tokens : {600, 12000}) {
      const ConvShape shape = linear(1, tokens, 1, 1);
      std::vector<float> x = random_floats(tokens, 14), dy = random_floats(tokens, 15);
      for (std::int64_t t = 0; t < tokens; ++t) {
        const bool back = t >= tokens / 2;
        x[at(t)] = back ? x[at(t - tokens / 2)] : 0.5f + std::fabs(x[at(t)]);
        dy[at(t)] = back ? -dy[at(t - tokens / 2)] : 0.5f + std::fabs(dy[at(t)]);
      }
      const auto xs = as_stored(x, in), dys = as_stored(dy, in);
      std::vector<float> terms(at(tokens));
      double magnitude = 0;
      for (std::int64_t t = 0; t < tokens; ++t) {
        terms[at(t)] = xs[at(t)] * dys[at(t)];
        magnitude += std::fabs(static_cast<double>(terms[at(t)]));
      }
      const double sum = std::fabs(static_cast<double>(accumulated_by_cutting(terms)));
      const double by_root = 8 * 0x1p-24 * std::sqrt(static_cast<double>(tokens)) * magnitude;
      EXPECT_EQ(sum > by_root, tokens == 12000) << sum << " " << by_root;
      // Without the error of Gram entries, which is larger here, F does it alone.
      EXPECT_GE(std::sqrt(gram_norm_with_floors(0, 0, magnitude, tokens)), sum);
      EXPECT_GE(std::sqrt(twin(x, dy, in, shape)[0]), sum);
      if (tokens == 600) {
        EXPECT_GE(std::sqrt(kernel(x, dy, in, shape)[0]), sum);
      }
    }
  }
}

}  // namespace
}  // namespace sfumato::emulation
