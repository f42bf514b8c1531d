#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "models/probe_network.h"
#include "sfumato/io/json_file.h"
#include "support/shared_folder.h"

// Every block type, resampler, embedding and special rule of UNet2DModel against what diffusers
// computed for it, and every block of DDPM++ against the network.py of releases, which
// tests/python/imported_diffusion.py holds against other programs' networks:
// unet2d_variants.json, made by tests/python/unet2d_against_diffusers.py. Weights
// and inputs are the same arithmetic patterns on both sides.
namespace sfumato {
namespace {

using nlohmann::json;
using test::numbers;

const json& fixture() {
  static const json all = read_json(test::source_folder() / "tests/models/unet2d_variants.json");
  return all;
}

const json& variant(const std::string& name) {
  for (const json& one : fixture())
    if (one["name"] == name) return one;
  throw std::runtime_error("no variant " + name);
}

at::Tensor pattern(const std::vector<int64_t>& shape, int64_t start, double scale,
                   double offset = 0) {
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

void set_weights(UNet2D& network) {
  const at::NoGradGuard no_grad;
  std::vector<Parameter*> sorted = network.parameters();
  std::sort(sorted.begin(), sorted.end(),
            [](const Parameter* a, const Parameter* b) { return a->name < b->name; });
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    at::Tensor& value = sorted[i]->value;
    const auto start = static_cast<int64_t>(i);
    const std::vector<int64_t> shape = value.sizes().vec();
    if (sorted[i]->name == "time_proj.weight" && !sorted[i]->trainable)
      value.copy_(pattern(shape, start, 0.5));
    else if (value.dim() == 1)
      value.copy_(pattern(shape, start, 0.3, sorted[i]->name.ends_with(".weight") ? 1 : 0));
    else
      value.copy_(
          pattern(shape, start, 2 / std::sqrt(static_cast<double>(value.numel() / value.size(0)))));
  }
}

std::vector<int64_t> shape_of(const json& one, const char* input) {
  return one["input_shapes"][input].get<std::vector<int64_t>>();
}

at::Tensor labels_for(const json& one, const UNet2DConfig& config, int64_t examples,
                      int64_t draws) {
  at::Tensor labels;
  if (config.class_embed_type == "identity")
    labels = pattern(shape_of(one, "class_labels"), 3, 1);
  else if (config.class_embed_type == "timestep")
    labels = at::arange(examples).mul_(5).add_(1);
  else if (config.num_class_embeds)
    labels = at::arange(examples).mul_(2).add_(1).remainder(*config.num_class_embeds);
  return labels.defined() ? labels.repeat_interleave(draws, 0) : labels;
}

test::Inputs inputs_of(const json& one, const UNet2DConfig& config) {
  test::Inputs inputs;
  const std::vector<int64_t> shape = shape_of(one, "sample");
  inputs.examples = shape[0];
  inputs.draws = shape[1];
  inputs.sample = pattern(shape, 1, 2).flatten(0, 1);
  inputs.target = pattern(shape_of(one, "target"), 2, 2).flatten(0, 1);
  const at::Tensor step = at::arange(shape[0] * shape[1]);
  if (config.time_embedding_type == "fourier")
    inputs.timestep = step.to(at::kDouble).mul_(0.4).add_(0.3).to(at::kFloat);
  else if (config.time_embedding_type == "learned")
    inputs.timestep = step.mul(3);
  else
    inputs.timestep = step.mul(37).add_(1);
  inputs.labels = labels_for(one, config, shape[0], shape[1]);
  return inputs;
}

class Variant : public testing::TestWithParam<std::string> {};

TEST_P(Variant, HasTheKeysAndShapesOfDiffusers) {
  const json& one = variant(GetParam());
  UNet2D network(UNet2DConfig::from_json(one["config"]));
  std::map<std::string, std::vector<int64_t>> ours, theirs;
  for (const Parameter* parameter : network.parameters())
    ours[parameter->name] = parameter->value.sizes().vec();
  EXPECT_EQ(ours.size(), network.parameters().size()) << "a name stands twice";
  for (const auto& [key, entry] : one["tensors"].items())
    theirs[key] = std::vector<int64_t>(entry.begin() + 1, entry.end());
  EXPECT_EQ(ours, theirs);
}

TEST_P(Variant, ComputesWhatDiffusersComputes) {
  const json& one = variant(GetParam());
  UNet2D network(UNet2DConfig::from_json(one["config"]));
  set_weights(network);
  const test::Inputs inputs = inputs_of(one, network.config());
  for (const AlgorithmPolicy policy : {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram}) {
    const test::Shown shown =
        test::probe_network(network, inputs, one["clip_norm"].get<double>(), policy);
    const at::Tensor out =
        shown.out.flatten().slice(0, 0, std::nullopt, one["out_stride"].get<int64_t>());
    EXPECT_LT(test::relative_difference(out, numbers(one["out"])), 1e-5);
    EXPECT_LT(test::relative_difference(shown.loss, numbers(one["loss"])), 1e-4);
    EXPECT_LT(test::relative_difference(shown.norm, numbers(one["norm"])), 1e-4);
    double total = 0;
    for (const auto& [key, norm] : shown.clipped_sum_norm) total += norm * norm;
    std::size_t trainable = 0;
    for (const auto& [key, entry] : one["tensors"].items()) {
      if (entry[0].is_null()) continue;
      ++trainable;
      ASSERT_TRUE(shown.clipped_sum_norm.contains(key)) << key;
      // Gradients that are rounding alone (a bias that a norm takes out) count against the whole.
      EXPECT_NEAR(shown.clipped_sum_norm.at(key), entry[0].get<double>(),
                  1e-4 * entry[0].get<double>() + 1e-6 * std::sqrt(total))
          << key;
    }
    EXPECT_EQ(trainable, shown.clipped_sum_norm.size());
  }
}

TEST_P(Variant, TapeDoesNotChangeTheOutput) {
  const json& one = variant(GetParam());
  UNet2D network(UNet2DConfig::from_json(one["config"]));
  set_weights(network);
  const test::Inputs inputs = inputs_of(one, network.config());
  const test::Shown shown = test::probe_network(network, inputs, 1, AlgorithmPolicy::kAuto);
  const at::NoGradGuard no_grad;
  const at::Tensor plain = network.forward(inputs.sample, inputs.timestep, inputs.labels, nullptr);
  // Images that are only drawn have kernels of their own, whose sums have another order.
  EXPECT_LT(test::relative_difference(shown.out, plain), 3e-6);
}

INSTANTIATE_TEST_SUITE_P(
    Diffusers, Variant,
    testing::Values("plain", "attention_padding_0", "attention_resnet_resamplers",
                    "conv_blocks_ignore_resampler_type", "resnet_blocks_scale_shift",
                    "scale_shift_mid_norm", "unetres_prefix", "ncsnpp", "skip_unbracketed_groups",
                    "skip_after_others", "norm_groups_null", "learned_time_classes",
                    "class_timestep", "class_identity", "class_table_centered_gray", "no_mid_block",
                    "no_mid_attention", "head_dim_does_not_divide", "one_head_deep", "one_level",
                    "ddpmpp", "ddpmpp_plain_classes"),
    [](const auto& test_case) { return test_case.param; });

TEST(Variants, AllAreTested) { EXPECT_EQ(fixture().size(), 22u); }

}  // namespace
}  // namespace sfumato
