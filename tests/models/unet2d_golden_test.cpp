#include <gtest/gtest.h>

#include <string>

#include "models/probe_network.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/tensor_file.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

// diffusers on random weights, see golden/README.md of the development data.
constexpr double kOutTolerance = 1e-5, kGoldenTolerance = 1e-4;

class Golden : public testing::TestWithParam<std::tuple<std::string, AlgorithmPolicy>> {};

at::Tensor labels_of_draws(const SafetensorsFile& file, int64_t draws) {
  if (!file.contains("class_labels")) return {};
  return to_tensor(file.info("class_labels")).repeat_interleave(draws);
}

test::Shown shown_by(UNet2D& network, const SafetensorsFile& file, double clip_norm,
                     AlgorithmPolicy policy) {
  test::Inputs inputs;
  at::Tensor sample = to_tensor(file.info("sample")), target = to_tensor(file.info("target"));
  inputs.examples = sample.size(0);
  if (sample.dim() == 5) {
    inputs.draws = sample.size(1);
    sample = sample.flatten(0, 1);
    target = target.flatten(0, 1);
  }
  inputs.sample = sample;
  inputs.target = target;
  inputs.timestep = to_tensor(file.info("timestep")).flatten();
  inputs.labels = labels_of_draws(file, inputs.draws);
  return test::probe_network(network, inputs, clip_norm, policy);
}

TEST_P(Golden, OutputsLossesNormsAndClippedSums) {
  const auto& [name, policy] = GetParam();
  SFUMATO_NEEDS_SHARED("golden/" + name);
  const std::filesystem::path folder = test::shared_folder() / "golden" / name;
  const LoadedUNet loaded = load_unet2d(folder);

  const SafetensorsFile single(folder / "io.safetensors");
  const test::Shown one = shown_by(*loaded.network, single, 1.0, policy);
  const SafetensorsFile several(folder / "io_draws.safetensors");
  const double clip_norm = to_tensor(several.info("clip_norm")).item().toDouble();
  const test::Shown draws = shown_by(*loaded.network, several, clip_norm, policy);

  for (const auto& [shown, file] : {std::pair{&one, &single}, std::pair{&draws, &several}}) {
    const auto wanted = [&](const char* key) { return to_tensor(file->info(key)); };
    EXPECT_LT(test::relative_difference(shown->out, wanted("out")), kOutTolerance);
    EXPECT_LT(test::relative_difference(shown->loss, wanted("loss_per_sample")), kGoldenTolerance);
    EXPECT_LT(test::relative_difference(shown->norm, wanted("grad_norm_per_sample")),
              kGoldenTolerance);
  }
  const std::string prefix = "clipped_sum_norm/";
  std::size_t compared = 0;
  for (const std::string& key : several.names()) {
    if (!key.starts_with(prefix)) continue;
    const double wanted = to_tensor(several.info(key)).item().toDouble();
    ASSERT_TRUE(draws.clipped_sum_norm.contains(key.substr(prefix.size()))) << key;
    EXPECT_NEAR(draws.clipped_sum_norm.at(key.substr(prefix.size())), wanted,
                kGoldenTolerance * wanted + 1e-7)
        << key;
    ++compared;
  }
  EXPECT_EQ(compared, draws.clipped_sum_norm.size());
}

INSTANTIATE_TEST_SUITE_P(
    Networks, Golden,
    testing::Combine(testing::Values("unet_google_ddpm_style", "unet_gray_centered",
                                     "unet_cm_class_cond"),
                     testing::Values(AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram)),
    [](const auto& test_case) {
      return std::get<0>(test_case.param) +
             (std::get<1>(test_case.param) == AlgorithmPolicy::kKeep ? "_keep" : "_gram");
    });

}  // namespace
}  // namespace sfumato
