// Networks of GANs against what PyTorch computed for them: gan_networks.json, made by
// tests/python/gan_networks_in_torch.py. Weights and inputs are the same patterns on both sides.
#include "sfumato/models/gan_networks.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "grad/small_network.h"
#include "models/probe_network.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/io/json_file.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using nlohmann::json;
using test::numbers;

constexpr int64_t kRows = 3, kStride = 101, kBatchesBefore = 5, kIterations = 20;
// PyTorch's numbers are those of float64; small variances of a batch cost some of float32's digits.
constexpr double kTolerance = 1e-5, kTrainingTolerance = 3e-5;

const json& fixture(const char* kind) {
  static const json all = read_json(test::source_folder() / "tests/models/gan_networks.json");
  return all.at(kind);
}

const json& case_named(const char* kind, const std::string& name) {
  for (const json& one : fixture(kind))
    if (one.at("name") == name) return one;
  throw std::runtime_error("no case " + name);
}

at::Tensor pattern(at::IntArrayRef shape, int64_t start, double scale, double offset = 0) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  const at::Tensor values =
      at::arange(count).mul_(7919).add_(start * 104729 + 12345).remainder(10007);
  return values.to(at::kDouble)
      .div_(10007)
      .sub_(0.5)
      .mul_(2 * scale)
      .add_(offset)
      .to(at::kFloat)
      .reshape(shape);
}

void set_weights(Module& network) {
  const at::NoGradGuard no_grad;
  NamedTensors sorted = named_state(network);
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const auto& [name, value] = sorted[i];
    const auto start = static_cast<int64_t>(i);
    const bool around_one = name.ends_with(".weight") || name.ends_with("_var");
    if (name.ends_with("weight_u") || name.ends_with("weight_v")) continue;  // below
    if (name.ends_with("num_batches_tracked"))
      value.fill_(kBatchesBefore);
    else if (value.dim() == 1)
      value.copy_(pattern(value.sizes(), start, 0.3, around_one ? 1 : 0));
    else
      value.copy_(pattern(value.sizes(), start,
                          1.5 / std::sqrt(static_cast<double>(value.numel() / value.size(0)))));
  }
  for (const Parameter* parameter : network.parameters())
    for (int64_t i = 0; parameter->map != nullptr && i < kIterations; ++i) parameter->map->follow();
}

at::Tensor labels_for(int64_t classes) {
  return at::arange(kRows).mul_(2).add_(1).remainder(std::max<int64_t>(classes, 1));
}

void expect_state(Module& network, const json& one) {
  std::map<std::string, std::vector<int64_t>> ours;
  for (const auto& [name, value] : named_state(network)) ours[name] = value.sizes().vec();
  EXPECT_EQ(ours, (one.at("state").get<std::map<std::string, std::vector<int64_t>>>()));
}

/// What a gradient may differ by from that of another machine: of thousands of ReLUs and maxima
/// some are within float32's rounding of a kink. In float64 inputs moved by 1e-5 of themselves
/// change norms by up to 2.5 % (resnet_64), with other inputs 8 %.
constexpr double kKinks = 0.08;

/// Norms by name; those that are rounding alone count against the largest.
void expect_norms(const std::map<std::string, at::Tensor>& tensors, const json& wanted,
                  double tolerance) {
  ASSERT_EQ(tensors.size(), wanted.size());
  double largest = 0;
  for (const auto& [name, norm] : wanted.items()) largest = std::max(largest, norm.get<double>());
  for (const auto& [name, norm] : wanted.items()) {
    ASSERT_TRUE(tensors.contains(name) && tensors.at(name).defined()) << name;
    const double ours = at::linalg_vector_norm(tensors.at(name).to(at::kDouble)).item<double>();
    EXPECT_NEAR(ours, norm.get<double>(), tolerance * norm.get<double>() + 1e-6 * largest) << name;
  }
}

/// What `out` of a training pass leaves: gradients, and statistics that moved.
void expect_gradients(Module& network, const at::Tensor& out, const json& one) {
  out.mul(pattern(out.sizes(), 2, 1)).sum().backward();
  std::map<std::string, at::Tensor> gradients, moved;
  for (const Parameter* parameter : network.parameters()) {
    gradients[parameter->name] = parameter->value.grad().clone();
    // Ours is that of the normalised weight.
    if (parameter->map != nullptr) parameter->map->pull_back(gradients[parameter->name]);
  }
  for (const auto& [name, buffer] : network.buffers()) moved[name] = *buffer;
  expect_norms(gradients, one.at("gradient_norms"), kKinks);
  expect_norms(moved, one.at("moved"), 1e-4);
}

class GanGenerators : public testing::TestWithParam<std::string> {};

TEST_P(GanGenerators, ComputeWhatPyTorchComputes) {
  const json& one = case_named("generators", GetParam());
  const std::unique_ptr<GeneratorNetwork> network = make_generator_network(one.at("config"));
  expect_state(*network, one);
  set_weights(*network);
  const at::Tensor latent = pattern({kRows, network->latent_size()}, 1, 2);
  const at::Tensor labels = labels_for(network->num_classes());
  const auto shown = [](const at::Tensor& out) {
    return out.detach().flatten().slice(0, 0, std::nullopt, kStride);
  };
  {
    const at::NoGradGuard no_grad;
    const at::Tensor out = network->forward(latent, labels, false);
    const ImageShape shape = network->image_shape();
    EXPECT_EQ(out.sizes(), (at::IntArrayRef{kRows, shape.channels, shape.height, shape.width}));
    EXPECT_LT(test::relative_difference(shown(out), numbers(one.at("out"))), kTolerance);
    EXPECT_TRUE(network->forward(latent.slice(0, 1, 2), labels.slice(0, 1, 2), false)
                    .allclose(out.slice(0, 1, 2), 1e-5, 1e-6))
        << "an image depends on the batch";
  }
  const at::Tensor out = network->forward(latent, labels, true);
  EXPECT_LT(test::relative_difference(shown(out), numbers(one.at("out_training"))),
            kTrainingTolerance);
  expect_gradients(*network, out, one);
}

class GanDiscriminators : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    network_ = make_discriminator_network(case_().at("config"));
    set_weights(*network_);
    const ImageShape shape = network_->image_shape();
    images_ = pattern({kRows, shape.channels, shape.height, shape.width}, 1, 1);
    labels_ = labels_for(network_->num_classes());
  }
  static const json& case_() { return case_named("discriminators", GetParam()); }
  bool has_batch_norm() const { return case_().at("config").value("norm", "") == "batch"; }

  std::unique_ptr<DiscriminatorNetwork> network_;
  at::Tensor images_, labels_;
};

TEST_P(GanDiscriminators, ComputeWhatPyTorchComputes) {
  expect_state(*network_, case_());
  {
    const at::NoGradGuard no_grad;
    const at::Tensor out = network_->forward(images_, labels_, nullptr);
    EXPECT_LT(test::relative_difference(out, numbers(case_().at("out"))), kTolerance);
  }
  const at::Tensor out = network_->forward(images_, labels_, nullptr);
  EXPECT_LT(test::relative_difference(out.detach(), numbers(case_().at("out_training"))),
            kTrainingTolerance);
  expect_gradients(*network_, out, case_());
}

// Two draws of each example, brute force by autograd one example at a time.
TEST_P(GanDiscriminators, GradientsPerExampleAgreeWithBruteForce) {
  if (has_batch_norm()) {
    GradientEngine engine(network_->parameters(), {});
    EXPECT_THROW(
        engine.accumulate(kRows, 1, {},
                          [&](Tape& tape) { return network_->forward(images_, labels_, &tape); }),
        PrivacyError);
    return;
  }
  const at::Tensor images =
      images_.repeat_interleave(2, 0).add(pattern(images_.repeat_interleave(2, 0).sizes(), 7, 0.3));
  const at::Tensor labels = labels_.repeat_interleave(2, 0);
  const at::Tensor signs = at::tensor({1.0f, -0.5f});
  const auto loss = [&](int64_t first, int64_t examples, Tape* tape) {
    return network_
        ->forward(images.narrow(0, 2 * first, 2 * examples),
                  labels.narrow(0, 2 * first, 2 * examples), tape)
        .view({examples, 2})
        .mul(signs)
        .square()
        .mean({1});
  };
  const std::vector<Parameter*> parameters = network_->parameters();
  std::vector<test::Gradient> gradients;
  for (int64_t i = 0; i < kRows; ++i) {
    for (Parameter* parameter : parameters) parameter->value.mutable_grad() = at::Tensor{};
    loss(i, 1, nullptr).sum().backward();
    test::Gradient& gradient = gradients.emplace_back();
    for (const Parameter* parameter : parameters)
      gradient.push_back(parameter->value.grad().clone());
  }
  ClipOptions clip;
  clip.clip_norm_l2 = 0.99 * test::norm_of(gradients[0]);
  test::Gradient expected = test::zeros_of(parameters);
  for (const test::Gradient& gradient : gradients) {
    const test::Gradient part = test::clipped(gradient, clip);
    for (std::size_t j = 0; j < expected.size(); ++j) expected[j].add_(part[j]);
  }
  for (const AlgorithmPolicy policy : {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram}) {
    GradientEngine engine(parameters, clip, policy);
    const BatchStatistics statistics =
        engine.accumulate(kRows, 2, {}, [&](Tape& tape) { return loss(0, kRows, &tape); });
    const ClippedSum sum = engine.take();
    EXPECT_LE(test::distance(ClippedSumInspector::sums(sum), expected),
              1e-4 * test::norm_of(expected));
    for (int64_t i = 0; i < kRows; ++i) {
      const double norm = test::norm_of(gradients[static_cast<std::size_t>(i)]);
      EXPECT_NEAR(statistics.norm[i].item<double>(), norm, 1e-4 * norm);
    }
  }
}

std::string name_of(const testing::TestParamInfo<std::string>& info) { return info.param; }

INSTANTIATE_TEST_SUITE_P(PyTorch, GanGenerators,
                         testing::Values("dcgan_64", "dcgan_32_classes", "dcgan_28_two_steps",
                                         "dcgan_28_norm_free", "resnet_32", "resnet_28",
                                         "resnet_64"),
                         name_of);
INSTANTIATE_TEST_SUITE_P(PyTorch, GanDiscriminators,
                         testing::Values("dcgan_64", "dcgan_32_group", "dcgan_28_norm_free",
                                         "resnet_32", "resnet_28", "resnet_64", "dcgan_32_spectral",
                                         "resnet_28_spectral"),
                         name_of);

TEST(GanNetworks, AllCasesAreTested) {
  EXPECT_EQ(fixture("generators").size(), 7u);
  EXPECT_EQ(fixture("discriminators").size(), 8u);
}

}  // namespace
}  // namespace sfumato
