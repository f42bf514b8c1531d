#include "kernels/weight_grad_plan.h"

#include <gtest/gtest.h>

#include "emulation/weight_grad_case.h"
#include "kernels/conv_weight_grad.h"

namespace sfumato {
namespace {

/// 16 examples of 8 draws; a convolution that keeps their size.
ConvShape same_size(std::int64_t size, std::int64_t channels, std::int64_t out_channels,
                    std::int64_t kernel) {
  ConvShape s;
  s.examples = 16;
  s.draws = 8;
  s.height = s.width = s.out_height = s.out_width = size;
  s.channels = channels;
  s.out_channels = out_channels;
  s.kernel = {kernel, kernel};
  s.padding = {kernel / 2, kernel / 2};
  return s;
}

TEST(WeightGradDivision, CoversEveryStepOnceInPartsThatAreNotShort) {
  for (const std::int32_t tiles : {1, 2, 3, 9, 36, 72})
    for (const std::int32_t steps : {1, 3, 4, 5, 7, 8, 9, 64, 256})
      for (std::int32_t workers = 1; workers <= 2 * tiles + 5; ++workers) {
        const auto division = WeightGradDivision::of(tiles, steps, workers);
        ASSERT_EQ(division.begin(0), 0);
        ASSERT_EQ(division.begin(workers), tiles * steps);
        for (std::int32_t worker = 0; worker < workers; ++worker) {
          const std::int32_t begin = division.begin(worker), end = division.begin(worker + 1);
          ASSERT_LE(begin, end);
          ASSERT_TRUE(begin % steps == 0 || begin % steps >= WeightGradDivision::kFewestSteps);
          ASSERT_TRUE(begin % steps == 0 ||
                      steps - begin % steps >= WeightGradDivision::kFewestSteps);
          // Nobody has more than his share but for what the rounding moved.
          ASSERT_LE(end - begin,
                    tiles * steps / workers + 1 + 2 * WeightGradDivision::kFewestSteps);
        }
      }
}

TEST(WeightGradPlan, FillsTheMultiprocessorsOfTheNetworkItIsMadeFor) {
  // google/ddpm-cifar10-32 with 16 images of 8 draws: 16 workers an example are 256 of 264 places.
  struct Row {
    std::int64_t size, channels, out_channels, kernel;
    std::int32_t tiles, workers;
  };
  for (const Row& row :
       {Row{32, 128, 128, 3, 9, 16}, Row{32, 256, 128, 3, 18, 16}, Row{32, 256, 256, 3, 36, 16},
        Row{16, 256, 256, 3, 36, 16}, Row{16, 256, 256, 1, 4, 8}, Row{4, 256, 256, 3, 36, 36}}) {
    const ConvShape s = same_size(row.size, row.channels, row.out_channels, row.kernel);
    const WeightGradPlan plan = plan_weight_grad(s, Element::kBfloat16);
    EXPECT_EQ(plan.division.tiles, row.tiles) << row.size << " " << row.channels;
    EXPECT_EQ(plan.division.workers, row.workers) << row.size << " " << row.channels;
  }
}

TEST(ConvWeightGradLaunch, EveryTileFitsTheSmallestSharedMemory) {
  emulation::set_most_shared_memory(99 << 10);  // compute capability 8.6, 8.9, 12.0
  for (const auto& [channels, tile] :
       {std::pair{128, WeightGradTile::kLarge}, std::pair{40, WeightGradTile::kMedium},
        std::pair{8, WeightGradTile::kFlat}})
    for (const Element in : {Element::kFloat32, Element::kBfloat16}) {
      ConvShape s = same_size(2, channels, channels, 1);
      s.examples = s.draws = 1;
      EXPECT_EQ(plan_weight_grad(s, in).tile, tile);
      const auto x = emulation::random_floats(4 * channels, 1);
      const auto outputs = emulation::run_weight_grad(
          x, x, in, in, 1, s.weights(), channels, conv_weight_grad_workspace_bytes(s), {},
          [&](auto px, auto dy, auto grad, auto bias, auto norm, auto bias_norm, auto workspace) {
            EXPECT_LAUNCHED(launch_conv_weight_grad(px, dy, in, s, grad, in, bias, norm, bias_norm,
                                                    workspace, nullptr));
          });
      EXPECT_GT(outputs.norm[0], 0);
    }
  emulation::set_most_shared_memory(emulation::kMostSharedMemory);
}

// Refused on the host, before a pointer is looked at --------------------------------------------

bool is_refused(const ConvShape& shape, double* bias_squared_norm = nullptr) {
  return launch_conv_weight_grad(nullptr, nullptr, Element::kFloat32, shape, nullptr,
                                 Element::kFloat32, nullptr, nullptr, bias_squared_norm, nullptr,
                                 nullptr) != 0;
}

TEST(ConvWeightGradLaunch, RefusesABiasNormWithoutABias) {
  double norm = 0;
  EXPECT_TRUE(is_refused(same_size(4, 8, 8, 3), &norm));
}

TEST(ConvWeightGradLaunch, RefusesWhatItsIndicesCannotHold) {
  ConvShape many_tokens = same_size(4, 8, 8, 3);
  many_tokens.draws = std::int64_t{1} << 30;
  EXPECT_TRUE(is_refused(many_tokens));
  // Each size is in range, and their tiles are 2^44.
  ConvShape many_tiles = same_size(1, std::int64_t{1} << 29, std::int64_t{1} << 29, 1);
  many_tiles.draws = 1;
  EXPECT_TRUE(is_refused(many_tiles));
}

TEST(ConvWeightGradLaunch, RefusesSizesThatAreNothing) {
  EXPECT_TRUE(is_refused(same_size(4, 0, 8, 3)));
  EXPECT_TRUE(is_refused(same_size(4, 8, 0, 3)));
  ConvShape no_draws = same_size(4, 8, 8, 3);
  no_draws.draws = 0;
  EXPECT_TRUE(is_refused(no_draws));
}

}  // namespace
}  // namespace sfumato
