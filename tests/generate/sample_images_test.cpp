#include "sfumato/generate/diffusion/sample_images.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "generate/one_step.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

using test::DrawingOptions;

const ImageShape kImageShape{3, 4, 6};

/// A smooth stand-in with a dependence on everything.
at::Tensor labelled_stand_in(const at::Tensor& x, const at::Tensor& t, const at::Tensor& labels) {
  at::Tensor out = 0.3 * x + 0.1 * at::sin(5 * x) + t.view({-1, 1, 1, 1}) / 5000;
  if (labels.defined()) out = out + 0.1 * labels.view({-1, 1, 1, 1});
  return out;
}

std::unique_ptr<Solver> solver(const std::string& name, double eta = 0) {
  DrawingOptions options;
  options.solver = name;
  options.steps = 12;
  options.eta = eta;
  return make_solver(NoiseSchedule({}), options);
}

std::vector<ImageId> some_images() {
  return {{0, 0}, {1, 0}, {1, 1}, {0, 1}, {2, 7}, {2, 1 << 20}, {0, 2}};
}

TEST(SampleImages, DoNotDependOnTheBatchOrTheirNeighbours) {
  const std::vector<ImageId> ids = some_images();
  for (const auto& [name, eta] : {std::pair{"ddpm", 0.0},
                                  {"ddim", 0.0},
                                  {"ddim", 0.7},
                                  {"dpmpp_3m", 0.0},
                                  {"sde_dpmpp_2m", 0.0},
                                  {"unipc", 0.0}}) {
    const auto how = solver(name, eta);
    const at::Tensor whole = sample_images(labelled_stand_in, *how, kImageShape, ids, true, 5);
    EXPECT_EQ(whole.sizes(), at::IntArrayRef({7, 4, 6, 3}));
    EXPECT_EQ(whole.scalar_type(), at::kByte);
    for (std::size_t size : {1u, 3u})
      for (std::size_t begin = 0; begin + size <= ids.size(); ++begin) {
        const at::Tensor part = sample_images(labelled_stand_in, *how, kImageShape,
                                              std::span(ids).subspan(begin, size), true, 5);
        const at::Tensor same =
            whole.narrow(0, static_cast<int64_t>(begin), static_cast<int64_t>(size));
        EXPECT_LE((part.to(at::kInt) - same.to(at::kInt)).abs().max().item<int>(), 1);
      }
  }
}

TEST(SampleImages, SeedLabelAndIndexEachGiveAnotherImage) {
  const auto how = solver("ddim");
  const auto one = [&](ImageId id, uint64_t seed) {
    return sample_images(labelled_stand_in, *how, kImageShape, {&id, 1}, false, seed);
  };
  const at::Tensor base = one({0, 0}, 0);
  EXPECT_TRUE(base.equal(one({0, 0}, 0)));
  EXPECT_FALSE(base.equal(one({0, 0}, 1)));
  EXPECT_FALSE(base.equal(one({1, 0}, 0)));
  EXPECT_FALSE(base.equal(one({0, 1}, 0)));
  EXPECT_FALSE(base.equal(one({0, int64_t{1} << 32}, 0)));
}

TEST(SampleImages, ValuesBecomeGreyLevelsByRounding) {
  DrawingOptions options;
  options.steps = 1;
  options.prediction = Prediction::kSample;
  options.clip_sample = false;
  // One step at t = 0: the output is the image.
  const auto how = make_solver(NoiseSchedule({}), options);
  const std::vector<ImageId> ids{{0, 0}};
  for (const auto& [value, grey] :
       std::vector<std::pair<double, int>>{{-1, 0},
                                           {-3, 0},
                                           {1, 255},
                                           {2, 255},
                                           {0, 128},
                                           {2 * 100.4 / 255 - 1, 100},
                                           {2 * 100.6 / 255 - 1, 101}}) {
    const DenoiserFn constant = [v = value](const at::Tensor& x, const at::Tensor&,
                                            const at::Tensor&) { return at::full_like(x, v); };
    const at::Tensor image = sample_images(constant, *how, kImageShape, ids, false, 0);
    EXPECT_EQ(image.min().item<int>(), grey) << value;
    EXPECT_EQ(image.max().item<int>(), grey) << value;
  }
}

TEST(SampleImages, StartFromUnitNoiseInChannelOrder) {
  // A network that reports what it is given; the solver then returns it as the clean image.
  at::Tensor seen;
  const DenoiserFn spy = [&](const at::Tensor& x, const at::Tensor& t, const at::Tensor& labels) {
    EXPECT_EQ(t.scalar_type(), at::kLong);
    EXPECT_FALSE(labels.defined());
    seen = x.clone();
    return x;
  };
  DrawingOptions options;
  options.steps = 1;
  options.prediction = Prediction::kSample;
  const std::vector<ImageId> ids{{0, 0}, {0, 1}, {0, 2}, {0, 3}};
  const ImageShape shape{2, 24, 40};
  const at::Tensor image =
      sample_images(spy, *make_solver(NoiseSchedule({}), options), shape, ids, false, 0);
  const double n = static_cast<double>(seen.numel());
  EXPECT_LT(std::abs(seen.mean().item<double>()), 4.9 / std::sqrt(n));
  EXPECT_LT(std::abs(seen.square().mean().item<double>() - 1), 4.9 * std::sqrt(2 / n));
  const double expected = std::clamp(seen[2][1][5][7].item<double>() / 2 + 0.5, 0.0, 1.0) * 255;
  EXPECT_NEAR(image[2][5][7][1].item<double>(), expected, 0.501);
}

TEST(SampleImages, PartsAreDrawnAsOneBatch) {
  const int threads = at::get_num_threads();
  const at::Tensor x = at::sin(at::arange(7 * 6).to(at::kFloat)).view({7, 1, 2, 3});
  const at::Tensor t = at::arange(7), labels = at::arange(7) * 3;
  for (const int used : {1, 2}) {
    at::set_num_threads(used);
    for (const auto& [rows, parts] : {std::pair{2, 4}, {3, used == 1 ? 3 : 4}, {7, used}, {9, 1}}) {
      std::atomic<int> calls = 0;
      const DenoiserFn network = [&](const at::Tensor& part, const at::Tensor& at_level,
                                     const at::Tensor& of) {
        ++calls;
        EXPECT_FALSE(at::GradMode::is_enabled());
        EXPECT_LE(part.size(0), rows);
        return labelled_stand_in(part, at_level, of);
      };
      const at::NoGradGuard no_grad;
      const at::Tensor out = in_parts(network, rows)(x, t, labels);
      EXPECT_EQ(calls, parts) << rows << " rows, " << used << " threads";
      EXPECT_TRUE(out.allclose(labelled_stand_in(x, t, labels), 0, 1e-6));
      EXPECT_TRUE(in_parts(network, rows)(x, t, {}).allclose(labelled_stand_in(x, t, {}), 0, 1e-6));
    }
  }
  at::set_num_threads(threads);
}

TEST(SampleImages, GuidanceCombinesBothPredictionsInOneCall) {
  int calls = 0;
  const DenoiserFn network = [&](const at::Tensor& x, const at::Tensor& t,
                                 const at::Tensor& labels) {
    ++calls;
    EXPECT_EQ(t.size(0), x.size(0));
    return x * (labels + 1).view({-1, 1, 1, 1});
  };
  const at::Tensor x = at::sin(at::arange(12).to(at::kFloat)).view({2, 1, 2, 3});
  const at::Tensor t = at::zeros({2}, at::kLong), labels = at::arange(2);
  // (1 + w) (y + 1) x - w (10 + 1) x
  const at::Tensor out = guided(network, 0.5, 10)(x, t, labels);
  const at::Tensor expected =
      x * (1.5 * (labels + 1) - 0.5 * 11).view({-1, 1, 1, 1}).to(at::kFloat);
  EXPECT_LT((out - expected).abs().max().item<float>(), 1e-5);
  EXPECT_EQ(calls, 1);
  const at::Tensor plain = guided(network, 0, 10)(x, t, labels);
  EXPECT_TRUE(plain.equal(network(x, t, labels)));
  EXPECT_THROW(guided(network, 1, 10)(x, t, at::Tensor()), std::logic_error);
}

TEST(SampleImages, ValuesThatAreNotFiniteAreAnError) {
  const DenoiserFn broken = [](const at::Tensor& x, const at::Tensor&, const at::Tensor&) {
    at::Tensor out = at::zeros_like(x);
    out.view({-1})[3] = std::numeric_limits<float>::quiet_NaN();
    return out;
  };
  const std::vector<ImageId> ids{{0, 0}};
  EXPECT_THROW(sample_images(broken, *solver("ddim"), kImageShape, ids, false, 0), DataError);
}

}  // namespace
}  // namespace sfumato
