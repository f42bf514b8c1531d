#include <list>
// Whole networks on kernels: against diffusers' numbers of the development data and against the
// CPU, for gradients, training steps and sampling.
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <numeric>

#include "emulated/on_kernels.h"
#include "models/probe_network.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/config/config.h"
#include "sfumato/generate/diffusion/objective.h"
#include "sfumato/generate/diffusion/sample_images.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/train/gradient_step.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using namespace test;

struct GoldenTolerance {
  double out, gradients;
};
/// fp32 as on the CPU; the others as operands are rounded to 11 and 8 bits, through some 30 layers.
GoldenTolerance golden_tolerance(Precision precision) {
  return precision == Precision::kFp32   ? GoldenTolerance{2e-5, 2e-4}
         : precision == Precision::kTf32 ? GoldenTolerance{1e-2, 1e-2}
                                         : GoldenTolerance{6e-2, 6e-2};
}

class GoldenOnKernels
    : public OnKernels,
      public ::testing::WithParamInterface<std::tuple<std::string, Precision, AlgorithmPolicy>> {};

Inputs inputs_of(const SafetensorsFile& file, c10::Device device) {
  Inputs inputs;
  at::Tensor sample = to_tensor(file.info("sample")), target = to_tensor(file.info("target"));
  inputs.examples = sample.size(0);
  if (sample.dim() == 5) {
    inputs.draws = sample.size(1);
    sample = sample.flatten(0, 1);
    target = target.flatten(0, 1);
  }
  inputs.sample = sample.to(device);
  inputs.target = target.to(device);
  inputs.timestep = to_tensor(file.info("timestep")).flatten().to(device);
  if (file.contains("class_labels"))
    inputs.labels = to_tensor(file.info("class_labels")).repeat_interleave(inputs.draws).to(device);
  return inputs;
}

TEST_P(GoldenOnKernels, LossesNormsAndClippedSums) {
  const auto& [name, precision, policy] = GetParam();
  SFUMATO_NEEDS_SHARED("golden/" + name);
  const PrecisionScope scope(precision);
  const KernelsServe here;
  const std::filesystem::path folder = shared_folder() / "golden" / name;
  const LoadedUNet loaded = load_unet2d(folder);
  loaded.network->set_compute_type(type_of(precision));
  move_parameters(loaded.network->parameters(), here.device());
  const SafetensorsFile file(folder / "io_draws.safetensors");
  const double clip_norm = to_tensor(file.info("clip_norm")).item().toDouble();
  const Shown shown =
      probe_network(*loaded.network, inputs_of(file, here.device()), clip_norm, policy);

  const GoldenTolerance tolerance = golden_tolerance(precision);
  const auto difference = [&](const at::Tensor& got, const char* key) {
    return relative_difference(got.cpu(), to_tensor(file.info(key)));
  };
  EXPECT_LT(difference(shown.out, "out"), tolerance.out);
  EXPECT_LT(difference(shown.loss, "loss_per_sample"), tolerance.gradients);
  EXPECT_LT(difference(shown.norm, "grad_norm_per_sample"), tolerance.gradients);
  const std::string prefix = "clipped_sum_norm/";
  std::size_t compared = 0;
  for (const std::string& key : file.names()) {
    if (!key.starts_with(prefix)) continue;
    const double wanted = to_tensor(file.info(key)).item().toDouble();
    ASSERT_TRUE(shown.clipped_sum_norm.contains(key.substr(prefix.size()))) << key;
    // Beside its own size a parameter's sum has rounding of the size of the whole.
    EXPECT_NEAR(shown.clipped_sum_norm.at(key.substr(prefix.size())), wanted,
                tolerance.gradients * (wanted + 0.02 * clip_norm))
        << key;
    ++compared;
  }
  EXPECT_EQ(compared, shown.clipped_sum_norm.size());
}

std::vector<std::string> golden_networks() {
  if (!on_gpu()) return {"unet_cm_class_cond"};
  return {"unet_google_ddpm_style", "unet_gray_centered", "unet_cm_class_cond"};
}

std::vector<AlgorithmPolicy> golden_policies() {
  return on_gpu() ? different_policies() : std::vector{AlgorithmPolicy::kKeep};
}

INSTANTIATE_TEST_SUITE_P(Networks, GoldenOnKernels,
                         ::testing::Combine(::testing::ValuesIn(golden_networks()),
                                            ::testing::ValuesIn(kPrecisions),
                                            ::testing::ValuesIn(golden_policies())),
                         [](const auto& each) {
                           return std::get<0>(each.param) + "_" +
                                  to_string(std::get<1>(each.param)) + "_" +
                                  to_string(std::get<2>(each.param));
                         });

/// A small network with every kind of block, on the CPU.
std::unique_ptr<UNet2D> some_network(bool skip_blocks = false) {
  UNet2DConfig config = small_config();
  config.num_class_embeds = 3;
  if (skip_blocks) {
    config.block_out_channels = {32, 32};
    config.norm_num_groups = 8;
    config.down_block_types = {"SkipDownBlock2D", "AttnSkipDownBlock2D"};
    config.up_block_types = {"AttnSkipUpBlock2D", "SkipUpBlock2D"};
  }
  auto network = std::make_unique<UNet2D>(config);
  network->initialise(5);
  return network;
}

class StepsOnKernels : public OnKernels, public ::testing::WithParamInterface<Precision> {
 protected:
  StepsOnKernels() { diffusion.draws = 2, diffusion.num_classes = 2; }

  GradientStep step(UNet2D& network, double clip_norm, AlgorithmPolicy policy) const {
    objectives.emplace_back(network, schedule, diffusion);
    return GradientStep(objectives.back(), {Clipping::kFlat, clip_norm, 0.01},
                        {.policy = policy, .tuner = nullptr});
  }
  TrainingBatch batch(std::initializer_list<uint64_t> keys) const {
    return draw_diffusion(synthetic_examples({3, 8, 8}, std::vector<uint64_t>(keys)), 0, 0,
                          diffusion);
  }
  /// The network where kernels are, in this test's precision.
  std::unique_ptr<UNet2D> placed_network(const KernelsServe& here, bool skip_blocks = false) const {
    auto network = some_network(skip_blocks);
    network->set_compute_type(type_of(GetParam()));
    move_parameters(network->parameters(), here.device());
    return network;
  }
  double tolerance() const { return golden_tolerance(GetParam()).gradients; }

  NoiseSchedule schedule{{}};
  DiffusionOptions diffusion;
  mutable std::list<DiffusionObjective> objectives;
};

Tensors host_copies(const Tensors& tensors) {
  Tensors copies;
  for (const at::Tensor& t : tensors) copies.push_back(host(t));
  return copies;
}

TEST_P(StepsOnKernels, PrivateAndPlainGradientsAreThoseOfTheCpu) {
  const PrecisionScope scope(GetParam());
  const auto reference = some_network();
  GradientStep on_cpu = step(*reference, 1e6, AlgorithmPolicy::kAuto);
  on_cpu.accumulate_private(batch({1, 2, 3}));
  const Tensors wanted = host_copies(ClippedSumInspector::sums(on_cpu.take_private()));
  const KernelsServe here;
  const auto network = placed_network(here);
  GradientStep gradients = step(*network, 1e6, AlgorithmPolicy::kAuto);
  gradients.accumulate_private(batch({1, 2, 3}));
  const Tensors got = host_copies(ClippedSumInspector::sums(gradients.take_private()));
  EXPECT_LE(distance_on_host(got, wanted), tolerance() * norm_on_host(wanted));
  gradients.accumulate_plain(batch({1, 2, 3}));
  EXPECT_LE(distance_on_host(gradients.take_plain(), wanted), tolerance() * norm_on_host(wanted));
  gradients.verify();
}

TEST_P(StepsOnKernels, NetworksWithSkipBlocksToo) {
  const PrecisionScope scope(GetParam());
  const auto reference = some_network(/*skip_blocks=*/true);
  GradientStep on_cpu = step(*reference, 1e6, AlgorithmPolicy::kAuto);
  on_cpu.accumulate_private(batch({1}));
  const Tensors wanted = host_copies(ClippedSumInspector::sums(on_cpu.take_private()));
  const KernelsServe here;
  const auto network = placed_network(here, /*skip_blocks=*/true);
  GradientStep gradients = step(*network, 1e6, AlgorithmPolicy::kAuto);
  gradients.accumulate_private(batch({1}));
  const Tensors got = host_copies(ClippedSumInspector::sums(gradients.take_private()));
  EXPECT_LE(distance_on_host(got, wanted), tolerance() * norm_on_host(wanted));
}

TEST_P(StepsOnKernels, OneExampleMovesTheSumByTheClipNormAtMost) {
  const PrecisionScope scope(GetParam());
  const KernelsServe here;
  const auto network = placed_network(here);
  for (const AlgorithmPolicy policy :
       on_gpu() ? different_policies() : std::vector{AlgorithmPolicy::kGram}) {
    const double clip_norm = 0.02;
    GradientStep gradients = step(*network, clip_norm, policy);
    TrainingBatch two = batch({1, 2});
    gradients.accumulate_private(two);
    const Tensors all = host_copies(ClippedSumInspector::sums(gradients.take_private()));
    two.mask[1] = 0.0f;
    gradients.accumulate_private(two);
    const Tensors less = host_copies(ClippedSumInspector::sums(gradients.take_private()));
    const double moved = distance_on_host(all, less);
    EXPECT_LE(moved, clip_norm * (1 + 1e-5)) << to_string(policy);
    EXPECT_GE(moved, clip_norm * 0.99) << to_string(policy);
  }
}

TEST_P(StepsOnKernels, ImagesAreThoseOfTheCpu) {
  const PrecisionScope scope(GetParam());
  const std::vector<std::string> how = {"sample.steps=2", "sample.spacing=leading"};
  const std::unique_ptr<Solver> solver =
      make_solver(schedule, load_config(std::nullopt, how)->sample, Prediction::kEpsilon);
  const std::vector<ImageId> ids = {{0, 0}, {1, 0}, {2, 5}};
  const auto reference = some_network();
  const at::Tensor wanted =
      sample_images(unet_denoiser(*reference), *solver, {3, 8, 8}, ids, true, 3);
  const KernelsServe here;
  const auto network = placed_network(here);
  const at::Tensor got =
      sample_images(unet_denoiser(*network), *solver, {3, 8, 8}, ids, true, 3, here.device());
  const at::Tensor difference = got.to(at::kInt).sub(wanted.to(at::kInt)).abs();
  EXPECT_LE(difference.max().item<int>(), GetParam() == Precision::kBf16 ? 24 : 2);
}

INSTANTIATE_TEST_SUITE_P(Precisions, StepsOnKernels, ::testing::ValuesIn(kPrecisions),
                         [](const auto& each) { return to_string(each.param); });

}  // namespace
}  // namespace sfumato
