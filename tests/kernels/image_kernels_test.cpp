// What images with channels last go through on the CPU: group norms and attention.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/group_norm_backward.h"
#include "kernels/group_norm_forward.h"
#include "kernels/image_attention.h"
#include "kernels/image_norm.h"

namespace sfumato {
namespace {

constexpr double kNormEps = 1e-5;

std::vector<float> drawn(std::int64_t count, unsigned seed, float mean = 0, float deviation = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

double farthest(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
  return most;
}

struct NormCase {
  std::int64_t samples, channels, groups, positions;
  float center = 0.5f;
};

/// The largest distance from the twin in float64, which is given x with the shift added.
double error_of_norm(const NormCase& c, bool shifted, FusedActivation activation) {
  const std::int64_t count = c.samples * c.positions * c.channels;
  const std::vector<float> x = drawn(count, 1, c.center);
  const std::vector<float> shift = drawn(c.samples * c.channels, 2);
  const std::vector<float> gamma = drawn(c.channels, 3), beta = drawn(c.channels, 4);
  std::vector<float> y(x.size()), sum = x, expected(x.size());
  if (shifted)
    for (std::int64_t i = 0; i < count; ++i)
      sum[static_cast<std::size_t>(i)] += shift[static_cast<std::size_t>(
          i / (c.positions * c.channels) * c.channels + i % c.channels)];
  GroupNormShape shape;
  shape.samples = c.samples, shape.channels = c.channels, shape.groups = c.groups;
  shape.positions = c.positions, shape.layout = Layout::kChannelsLast;
  shape.activation = activation;
  std::vector<float> mean(static_cast<std::size_t>(c.samples * c.groups)), rstd(mean.size());
  group_norm_forward_cpu(sum.data(), gamma.data(), beta.data(), kNormEps, shape, expected.data(),
                         mean.data(), rstd.data());
  ImageNorm norm;
  norm.x = x.data(), norm.shift = shifted ? shift.data() : nullptr;
  norm.gamma = gamma.data(), norm.beta = beta.data(), norm.eps = kNormEps;
  norm.channels = c.channels, norm.groups = c.groups, norm.positions = c.positions;
  norm.activation = activation, norm.y = y.data();
  image_norm_cpu(norm, 0, c.samples);
  return farthest(y, expected);
}

TEST(ImageNorm, IsTheGroupNormOfTheShiftedImage) {
  for (const NormCase& c : {NormCase{3, 16, 8, 784},
                            {2, 48, 8, 49},    // groups across vectors
                            {2, 80, 16, 196},  // of five channels
                            {1, 32, 1, 7},
                            {1, 32, 32, 5},
                            {2, 96, 32, 1}})
    for (const bool shifted : {false, true})
      for (const FusedActivation activation : {FusedActivation::kNone, FusedActivation::kSilu})
        EXPECT_LT(error_of_norm(c, shifted, activation), 2e-5)
            << c.channels << " channels, " << c.groups << " groups, " << shifted;
}

TEST(ImageNorm, ALargeMeanCostsNoDigits) {
  // x is rounded to 2^-14 there: so is what comes out, and no worse.
  EXPECT_LT(error_of_norm({1, 32, 4, 256, 1000}, false, FusedActivation::kNone), 1e-3);
}

TEST(ImageNorm, ImagesDoNotMixAndNanStaysInItsGroup) {
  const std::int64_t channels = 32, positions = 9, image = channels * positions;
  std::vector<float> x = drawn(3 * image, 5), gamma = drawn(channels, 6), beta = drawn(channels, 7);
  std::vector<float> together(x.size()), alone(static_cast<std::size_t>(image));
  x[static_cast<std::size_t>(image + 3)] = std::numeric_limits<float>::quiet_NaN();
  ImageNorm norm;
  norm.x = x.data(), norm.gamma = gamma.data(), norm.beta = beta.data(), norm.eps = kNormEps;
  norm.channels = channels, norm.groups = 4, norm.positions = positions, norm.y = together.data();
  image_norm_cpu(norm, 0, 3);
  norm.x = x.data() + 2 * image, norm.y = alone.data();
  image_norm_cpu(norm, 0, 1);
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + 2 * image));
  for (std::int64_t i = 0; i < image; ++i)
    EXPECT_EQ(std::isnan(together[static_cast<std::size_t>(image + i)]), i % channels < 8) << i;
}

/// The largest distances from the twin in float64, of dx and of gradients of gamma and beta over
/// their number of terms.
void expect_backward_of_twin(const NormCase& c, FusedActivation activation) {
  const std::int64_t count = c.samples * c.positions * c.channels, rows = c.samples * c.channels;
  const std::vector<float> x = drawn(count, 1, c.center), dy = drawn(count, 2);
  const std::vector<float> gamma = drawn(c.channels, 3), beta = drawn(c.channels, 4);
  GroupNormShape shape;
  shape.samples = c.samples, shape.channels = c.channels, shape.groups = c.groups;
  shape.positions = c.positions, shape.layout = Layout::kChannelsLast;
  shape.activation = activation;
  std::vector<float> y(x.size()), mean(static_cast<std::size_t>(c.samples * c.groups));
  std::vector<float> rstd(mean.size()), kept_mean(mean.size()), kept_rstd(mean.size());
  group_norm_forward_cpu(x.data(), gamma.data(), beta.data(), kNormEps, shape, y.data(),
                         mean.data(), rstd.data());
  std::vector<float> dx(x.size()), dgamma(static_cast<std::size_t>(rows)), dbeta(dgamma.size());
  group_norm_backward_cpu(x.data(), dy.data(), mean.data(), rstd.data(), gamma.data(), beta.data(),
                          shape, dx.data(), dgamma.data(), dbeta.data());

  ImageNorm forward;
  forward.x = x.data(), forward.gamma = gamma.data(), forward.beta = beta.data();
  forward.eps = kNormEps, forward.channels = c.channels, forward.groups = c.groups;
  forward.positions = c.positions, forward.activation = activation, forward.y = y.data();
  forward.mean = kept_mean.data(), forward.rstd = kept_rstd.data();
  image_norm_cpu(forward, 0, c.samples);
  EXPECT_LT(farthest(kept_mean, mean), 1e-6);
  EXPECT_LT(farthest(kept_rstd, rstd), 1e-5);

  std::vector<float> got_dx(x.size(), -1), got_dgamma(dgamma.size(), -1), got_dbeta(got_dgamma);
  ImageNormBackward norm;
  norm.x = x.data(), norm.dy = dy.data(), norm.mean = mean.data(), norm.rstd = rstd.data();
  norm.gamma = gamma.data(), norm.beta = beta.data();
  norm.channels = c.channels, norm.groups = c.groups, norm.positions = c.positions;
  norm.activation = activation;
  norm.dx = got_dx.data(), norm.dgamma = got_dgamma.data(), norm.dbeta = got_dbeta.data();
  image_norm_backward_cpu(norm, 0, c.samples);
  EXPECT_LT(farthest(got_dx, dx), 5e-5);
  const double terms = std::sqrt(static_cast<double>(c.positions));
  EXPECT_LT(farthest(got_dgamma, dgamma), 1e-5 * terms);
  EXPECT_LT(farthest(got_dbeta, dbeta), 1e-5 * terms);

  // Without dx, and without gradients of parameters, what is left has the same bits.
  std::vector<float> alone(x.size()), alone_dgamma(dgamma.size()), alone_dbeta(dgamma.size());
  norm.dx = nullptr, norm.dgamma = alone_dgamma.data(), norm.dbeta = alone_dbeta.data();
  image_norm_backward_cpu(norm, 0, c.samples);
  norm.dx = alone.data(), norm.dgamma = norm.dbeta = nullptr;
  image_norm_backward_cpu(norm, 0, c.samples);
  EXPECT_EQ(alone, got_dx);
  EXPECT_EQ(alone_dgamma, got_dgamma);
  EXPECT_EQ(alone_dbeta, got_dbeta);
}

TEST(ImageNormBackward, IsThatOfTheGroupNorm) {
  for (const NormCase& c : {NormCase{3, 16, 8, 784},
                            {2, 48, 8, 49},    // groups across vectors
                            {2, 80, 16, 196},  // of five channels
                            {1, 32, 1, 7},
                            {2, 96, 32, 65}})
    for (const FusedActivation activation : {FusedActivation::kNone, FusedActivation::kSilu}) {
      SCOPED_TRACE(c.channels);
      expect_backward_of_twin(c, activation);
    }
}

TEST(ImageNormBackward, NanStaysInItsImage) {
  const std::int64_t channels = 32, positions = 9, image = channels * positions;
  std::vector<float> x = drawn(3 * image, 5), dy = drawn(3 * image, 6), gamma = drawn(channels, 7);
  const std::vector<float> mean(12, 0.25f), rstd(12, 0.5f);
  x[static_cast<std::size_t>(image + 3)] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> dx(x.size()), dgamma(3 * channels), dbeta(3 * channels);
  ImageNormBackward norm;
  norm.x = x.data(), norm.dy = dy.data(), norm.mean = mean.data(), norm.rstd = rstd.data();
  norm.gamma = gamma.data(), norm.beta = gamma.data();
  norm.channels = channels, norm.groups = 4, norm.positions = positions;
  norm.activation = FusedActivation::kSilu;
  norm.dx = dx.data(), norm.dgamma = dgamma.data(), norm.dbeta = dbeta.data();
  image_norm_backward_cpu(norm, 0, 3);
  for (std::int64_t i = 0; i < 3 * image; ++i)
    EXPECT_EQ(std::isnan(dx[static_cast<std::size_t>(i)]), i / image == 1 && i % channels < 8) << i;
  for (std::int64_t c = 0; c < 3 * channels; ++c)
    EXPECT_EQ(std::isnan(dbeta[static_cast<std::size_t>(c)]), c == channels + 3) << c;
}

/// softmax(q k^T / sqrt(D)) v by definition.
std::vector<float> attention_by_definition(const std::vector<float>& qkv, std::int64_t images,
                                           std::int64_t tokens, std::int64_t heads,
                                           std::int64_t head_dim) {
  const std::int64_t width = heads * head_dim;
  const auto at = [&](std::int64_t n, std::int64_t t, std::int64_t c) {
    return double{qkv[static_cast<std::size_t>((n * tokens + t) * 3 * width + c)]};
  };
  std::vector<float> out(static_cast<std::size_t>(images * tokens * width));
  for (std::int64_t n = 0; n < images; ++n)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < tokens; ++i) {
        std::vector<double> p(static_cast<std::size_t>(tokens));
        double sum = 0;
        for (std::int64_t j = 0; j < tokens; ++j) {
          double score = 0;
          for (std::int64_t d = h * head_dim; d < (h + 1) * head_dim; ++d)
            score += at(n, i, d) * at(n, j, width + d);
          p[static_cast<std::size_t>(j)] =
              std::exp(score / std::sqrt(static_cast<double>(head_dim)));
          sum += p[static_cast<std::size_t>(j)];
        }
        for (std::int64_t d = h * head_dim; d < (h + 1) * head_dim; ++d) {
          double value = 0;
          for (std::int64_t j = 0; j < tokens; ++j)
            value += p[static_cast<std::size_t>(j)] / sum * at(n, j, 2 * width + d);
          out[static_cast<std::size_t>((n * tokens + i) * width + d)] = static_cast<float>(value);
        }
      }
  return out;
}

TEST(ImageAttention, IsTheSoftmaxOfScaledProducts) {
  struct Heads {
    std::int64_t images, tokens, heads, head_dim;
  };
  for (const Heads& c :
       {Heads{2, 49, 6, 8}, Heads{1, 16, 2, 16}, Heads{3, 1, 1, 8}, Heads{1, 70, 1, 32}}) {
    // Scores of up to a hundred: only their distance from the largest may be exponentiated.
    const std::vector<float> qkv =
        drawn(c.images * c.tokens * 3 * c.heads * c.head_dim, 8, 0.2f, 3.0f);
    const std::vector<float> expected =
        attention_by_definition(qkv, c.images, c.tokens, c.heads, c.head_dim);
    std::vector<float> out(expected.size());
    ImageAttention attention;
    attention.qkv = qkv.data(), attention.out = out.data();
    attention.tokens = c.tokens, attention.heads = c.heads, attention.head_dim = c.head_dim;
    for (const X86Level level : x86_levels()) {
      std::ranges::fill(out, -1.0f);
      image_attention_cpu(attention, 0, c.images, level);
      EXPECT_LT(farthest(out, expected), 1e-4) << c.tokens << " tokens";
    }
  }
}

}  // namespace
}  // namespace sfumato
