// Scattering features against PyTorch's convolution and pooling with wavelets from their formula;
// that they follow from an image alone.
#include "features/networks/scattering.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/complex.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/meshgrid.h>
#include <ATen/ops/replication_pad2d.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "features/formula_weights.h"

namespace sfumato {
namespace {

at::Tensor images_of(int64_t count, int64_t height, int64_t width, int64_t channels) {
  at::Tensor images = at::empty({count, height, width, channels}, at::kByte);
  auto* out = images.mutable_data_ptr<uint8_t>();
  uint32_t state = 7;
  for (int64_t i = 0; i < images.numel(); ++i) {
    state = state * 1664525 + 1013904223;
    out[i] = static_cast<uint8_t>(state >> 24);
  }
  return images;
}

/// Real parts of 16 wavelets, then their imaginary parts: float64 [32, 1, 7, 7].
at::Tensor wavelets() {
  const at::Tensor axis = at::arange(-3, 4, at::kDouble);
  const std::vector<at::Tensor> grid = at::meshgrid({axis, axis}, "ij");  // y, x
  std::vector<at::Tensor> real, imaginary;
  for (const auto& [radians, envelope] : {std::pair{1.6, 1.2}, {0.8, 2.5}})
    for (int direction = 0; direction < 8; ++direction) {
      const double angle = std::numbers::pi * direction / 8;
      const at::Tensor along = grid[1] * std::cos(angle) + grid[0] * std::sin(angle);
      const at::Tensor bell =
          at::exp((grid[0].square() + grid[1].square()) / (-2 * envelope * envelope));
      at::Tensor cosine = bell * at::cos(radians * along), sine = bell * at::sin(radians * along);
      cosine = cosine - bell * (cosine.sum() / bell.sum());
      sine = sine - bell * (sine.sum() / bell.sum());
      const at::Tensor mass = (cosine.square() + sine.square()).sqrt().sum();
      real.push_back((cosine / mass).unsqueeze(0));
      imaginary.push_back((sine / mass).unsqueeze(0));
    }
  return at::cat({at::stack(real), at::stack(imaginary)});
}

at::Tensor by_pytorch(const at::Tensor& images, int scales) {
  const at::Tensor x = (images.to(at::kDouble) / 255).permute({0, 3, 1, 2}).contiguous();
  std::vector<at::Tensor> parts = {at::adaptive_avg_pool2d(x, {7, 7}).flatten(1)};
  at::Tensor grey = x.mean(1, true);
  for (int scale = 0; scale < scales; ++scale) {
    if (scale > 0) grey = at::avg_pool2d(grey, 2);
    const at::Tensor found =
        at::conv2d(at::replication_pad2d(grey, {3, 3, 3, 3}), wavelets()).square();
    const at::Tensor moduli = (found.narrow(1, 0, 16) + found.narrow(1, 16, 16)).sqrt();
    parts.push_back(0.5 * at::adaptive_avg_pool2d(moduli, {7, 7}).flatten(1));
  }
  const at::Tensor all = at::cat(parts, 1);
  return all / all.square().sum(1, true).sqrt();
}

TEST(Scattering, IsPyTorchsConvolutionWithWaveletsByTheirFormula) {
  struct Case {
    int64_t height, width, channels;
    int scales;
  };
  for (const auto& [height, width, channels, scales] :
       {Case{28, 28, 1, 1}, {48, 64, 3, 2}, {97, 131, 1, 3}, {5, 9, 3, 1}}) {
    const auto network = make_scattering({.shape = {channels, height, width}, .weights = {}});
    const at::Tensor images = images_of(3, height, width, channels);
    const at::Tensor found = features_of(*network, images).features.to(at::kDouble);
    EXPECT_EQ(found.size(1), 49 * (channels + 16 * scales));
    const at::Tensor expected = by_pytorch(images, scales);
    ASSERT_EQ(found.sizes(), expected.sizes());
    EXPECT_LT((found - expected).abs().max().item<double>(), 1e-6) << height;
    EXPECT_NEAR(found[1].square().sum().item<double>(), 1, 1e-5);
  }
}

TEST(Scattering, BitsOfAnImageHangOnNoOther) {
  const auto network = make_scattering({.shape = {1, 28, 28}, .weights = {}});
  const at::Tensor images = images_of(5, 28, 28, 1);
  const at::Tensor together = features_of(*network, images).features;
  for (int64_t i = 0; i < 5; ++i)
    EXPECT_TRUE(together[i].equal(features_of(*network, images.narrow(0, i, 1)).features[0])) << i;
}

TEST(Scattering, ABlackImageHasFeaturesOfZero) {
  const auto network = make_scattering({.shape = {1, 28, 28}, .weights = {}});
  const at::Tensor black = at::full({1, 28, 28, 1}, 0, at::kByte);
  EXPECT_EQ(features_of(*network, black).features.abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace sfumato
