// Every layer on kernels against the CPU's rules, and what privacy rests on: a norm is never below
// that of what is added to the sum.
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "emulated/layer_cases.h"

namespace sfumato {
namespace {

using namespace test;

class LayersOnKernels : public OnKernels,
                        public ::testing::WithParamInterface<std::tuple<LayerRecipe, Precision>> {
 protected:
  LayerRecipe recipe() const { return std::get<0>(GetParam()); }
  Precision precision() const { return std::get<1>(GetParam()); }
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

at::Tensor only(int64_t example, int64_t examples) {
  at::Tensor mask = at::zeros({examples});
  mask[example] = 1.0f;
  return mask;
}

/// Gram matrices in float32 overestimate a little, as kernels/gram_norm.h says.
double tolerance_of_norms(Precision precision, AlgorithmPolicy policy) {
  return std::max(tolerance_of(precision), policy == AlgorithmPolicy::kGram ? 2e-4 : 0.0);
}

TEST_P(LayersOnKernels, LossNormsAndClippedSumAreThoseOfTheCpu) {
  int turn = static_cast<int>(recipe().name.size());
  for (const AlgorithmPolicy policy : different_policies()) {
    const double tolerance = tolerance_of_norms(precision(), policy);
    const Clipping clipping = kAllClippings[turn % 3];
    LayerPass pass{.recipe = recipe(), .precision = precision(), .policy = policy};
    pass.draws = 1 + turn / 3 % 3;
    pass.seed = static_cast<uint64_t>(++turn);
    const LayerOutcome first = run_on_cpu(pass, {at::Tensor{}})[0];
    // Clips some examples and leaves others.
    pass.clip = {clipping, 0.99 * median(values_on_host(first.norm)), 0.1};
    const LayerOutcome wanted = run_on_cpu(pass, {at::Tensor{}})[0];
    const LayerOutcome got = run_on_kernels(pass, {at::Tensor{}})[0];
    SCOPED_TRACE(to_string(policy) + ", clipping " + std::to_string(static_cast<int>(clipping)) +
                 ", draws " + std::to_string(pass.draws));
    EXPECT_LE(distance_on_host({got.loss}, {wanted.loss}),
              tolerance * norm_on_host({wanted.loss}) + 1e-6);
    for (int64_t i = 0; i < pass.examples; ++i) {
      const double norm = wanted.norm[i].item<double>();
      EXPECT_NEAR(got.norm[i].item<double>(), norm, tolerance * norm + 1e-6) << "example " << i;
    }
    const double total = norm_on_host(wanted.sums);
    ASSERT_GT(total, 0);
    EXPECT_LE(distance_on_host(got.sums, wanted.sums), tolerance * total);
    // Not one tensor hidden behind the others.
    for (std::size_t j = 0; j < got.sums.size(); ++j)
      EXPECT_LE(distance_on_host({got.sums[j]}, {wanted.sums[j]}),
                5 * tolerance * norm_on_host({wanted.sums[j]}) + tolerance * 0.02 * total)
          << "parameter " << j;
  }
}

TEST_P(LayersOnKernels, TheNormIsThatOfWhatIsAdded) {
  int turn = 0;
  for (const AlgorithmPolicy policy : different_policies()) {
    const Clipping clipping = turn++ % 2 == 0 ? Clipping::kFlat : Clipping::kPerLayer;
    LayerPass pass{.recipe = recipe(), .precision = precision(), .draws = 2, .policy = policy};
    const std::vector<at::Tensor> masks{only(0, 3), only(1, 3), only(2, 3)};
    pass.clip = {clipping, 1e6, 0.1};
    const std::vector<LayerOutcome> whole = run_on_kernels(pass, masks);
    double smallest = std::numeric_limits<double>::infinity();
    for (int64_t i = 0; i < 3; ++i) {
      const LayerOutcome& one = whole[static_cast<std::size_t>(i)];
      const double norm = one.norm[i].item<double>(), added = norm_on_host(one.sums);
      EXPECT_LE(added, norm) << to_string(policy) << ", example " << i;
      EXPECT_GE(added, (1 - 1e-3) * norm) << to_string(policy) << ", example " << i;
      smallest = std::min(smallest, norm);
    }
    pass.clip.clip_norm_l2 = 0.3 * smallest;
    for (const LayerOutcome& one : run_on_kernels(pass, masks)) {
      const double added = norm_on_host(one.sums);
      EXPECT_LE(added, pass.clip.clip_norm_l2) << to_string(policy);
      // Per layer, one of two parameters may lie within its share.
      EXPECT_GE(added, (clipping == Clipping::kFlat ? 1 - 1e-3 : 0.2) * pass.clip.clip_norm_l2)
          << to_string(policy);
    }
  }
}

/// Of one channel, any strides are contiguous as channels last, but only the right ones tell a
/// library to lay its output out so.
class WeightsOnKernels : public OnKernels {};
TEST_F(WeightsOnKernels, TellChannelsLastWhateverTheirSizes) {
  const KernelsServe here;
  for (const int64_t in : {1, 3, 8})
    for (const int64_t out : {1, 8}) {
      Conv2d layer({.in = in, .out = out, .padding = {1, 1}});
      const at::Tensor before = layer.weight.value.detach().clone();
      move_parameters(layer.parameters(), here.device());
      EXPECT_EQ(layer.weight.value.suggest_memory_format(), at::MemoryFormat::ChannelsLast)
          << in << " to " << out << ": " << layer.weight.value.strides();
      EXPECT_EQ(distance_on_host({layer.weight.value}, {before}), 0);
      EXPECT_TRUE(layer.weight.value.is_leaf());
    }
}

INSTANTIATE_TEST_SUITE_P(All, LayersOnKernels,
                         ::testing::Combine(::testing::ValuesIn(layer_recipes()),
                                            ::testing::ValuesIn(kPrecisions)),
                         [](const auto& each) {
                           return std::get<0>(each.param).name + "_" +
                                  to_string(std::get<1>(each.param));
                         });

}  // namespace
}  // namespace sfumato
