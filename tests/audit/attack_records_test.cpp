// Attacks from stores to verdicts: on a denoiser that knows its members by heart, on one that knows
// nothing of them, and on networks.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "audit/small_images.h"
#include "sfumato/audit/membership.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/batch.h"
#include "sfumato/generate/diffusion/membership.h"
#include "sfumato/models/unet2d.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using test::random_images;
using test::write_store;
using ::testing::ElementsAre;

std::vector<int64_t> all_of(const RecordStore& store) {
  return choose_records(store.count(), 0, 0, "test");
}

/// float32 [n, 1, 8, 8] in [-1, 1].
at::Tensor tensor_of(const RecordStore& store) {
  at::Tensor images = at::zeros({store.count(), 1, 8, 8});
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < store.count(); ++i) indices.push_back(i);
  gather(store, indices, images.mutable_data_ptr<float>());
  return images;
}

/// The best possible denoiser of the members: x_0 is one of them, and Bayes tells which. The noise
/// it finds is a little wrong, by a factor that depends on t, as networks are: without that, each
/// of its steps could be undone exactly, whatever the image, and SecMI saw nothing.
DenoiserFn knows_by_heart(const at::Tensor& members, const NoiseSchedule& schedule) {
  return [members, &schedule](const at::Tensor& x, const at::Tensor& t, const at::Tensor&) {
    const auto timestep = t[0].item<int64_t>();
    const float alpha = schedule.alpha_cumprod(timestep);
    const at::Tensor far =
        (x.unsqueeze(1) - std::sqrt(alpha) * members.unsqueeze(0)).flatten(2).square().sum(2);
    const at::Tensor weights = at::softmax(-far / (2 * (1 - alpha)), 1);
    const at::Tensor clean = weights.matmul(members.flatten(1)).view_as(x);
    const double wrong = 1 + 0.05 * std::sin(static_cast<double>(timestep));
    return wrong * (x - std::sqrt(alpha) * clean) / std::sqrt(1 - alpha);
  };
}

std::vector<AttackResult> attack(const DenoiserFn& network, const NoiseSchedule& schedule,
                                 const RecordStore& members, const RecordStore& others,
                                 const MembershipOptions& options) {
  const DiffusionMembership scorer(network, schedule, Prediction::kEpsilon, options);
  return evaluate_attacks(scorer.columns(),
                          score_records(members, all_of(members), scorer, false, 32),
                          score_records(others, all_of(others), scorer, false, 32));
}

class AttackTest : public testing::Test {
 protected:
  AttackTest() { at::set_num_threads(1); }
  test::TempFolder folder_;
};

TEST_F(AttackTest, ChoosesDifferentRecordsInAnOrderOfTheirOwn) {
  const auto chosen = choose_records(1000, 100, 5, "a");
  EXPECT_EQ(chosen.size(), 100u);
  EXPECT_EQ(std::set(chosen.begin(), chosen.end()).size(), 100u);
  EXPECT_FALSE(std::is_sorted(chosen.begin(), chosen.end()));
  EXPECT_EQ(chosen, choose_records(1000, 100, 5, "a"));
  EXPECT_NE(chosen, choose_records(1000, 100, 5, "b"));
  EXPECT_NE(chosen, choose_records(1000, 100, 6, "a"));
  auto everything = choose_records(13, 0, 0, "a");
  std::sort(everything.begin(), everything.end());
  EXPECT_THAT(everything, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
  double sum = 0;  // of 100 of 0..999, mean 499.5 and standard deviation 27.4
  for (const int64_t record : chosen) sum += static_cast<double>(record);
  EXPECT_NEAR(sum / 100, 499.5, 5 * 27.4);
  EXPECT_THROW(choose_records(10, -1, 0, "a"), UsageError);
}

TEST_F(AttackTest, FindsMembersThatTheDenoiserKnowsByHeart) {
  const RecordStore members = write_store(folder_ / "members", random_images(60, 1));
  const RecordStore others = write_store(folder_ / "others", random_images(50, 2));
  const NoiseSchedule schedule({});
  const auto results =
      attack(knows_by_heart(tensor_of(members), schedule), schedule, members, others, {});
  ASSERT_EQ(results.size(), 4u);
  for (const AttackResult& result : results) {
    EXPECT_EQ(result.auroc.value, 1) << result.column.name();
    EXPECT_EQ(result.points[0].true_positives.hits, 30) << result.column.name();
    EXPECT_EQ(result.points[0].true_positives.trials, 30);
    EXPECT_EQ(result.points[0].false_positives.trials, 25);
  }
}

TEST_F(AttackTest, FindsNothingInADenoiserThatNeverSawThem) {
  const NoiseSchedule schedule({});
  const DenoiserFn stranger = [](const at::Tensor& x, const at::Tensor&, const at::Tensor&) {
    return (0.7 * x).tanh();
  };
  std::map<std::string, int> covered;  // of twenty intervals of 95 %, by score
  for (unsigned seed = 0; seed < 20; ++seed) {
    const auto place = folder_ / std::to_string(seed);
    const RecordStore members = write_store(place / "a", random_images(200, 2 * seed));
    const RecordStore others = write_store(place / "b", random_images(200, 2 * seed + 1));
    for (const AttackResult& result : attack(stranger, schedule, members, others, {}))
      covered[to_string(result.column.score)] +=
          result.auroc.lower <= 0.5 && 0.5 <= result.auroc.upper ? 1 : 0;
  }
  ASSERT_EQ(covered.size(), 4u);
  for (const auto& [score, times] : covered) EXPECT_GE(times, 17) << score;
}

TEST_F(AttackTest, TheTimestepIsChosenOnTheOtherHalf) {
  // Column 1 separates the selection half and nothing else, column 0 the reported half only.
  ScoredRecords members{.records = std::vector<int64_t>(40),
                        .scores = at::randn({40, 2}, at::kDouble)};
  ScoredRecords others{.records = std::vector<int64_t>(40),
                       .scores = at::randn({40, 2}, at::kDouble)};
  for (int64_t i = 0; i < 40; ++i) members.scores[i][i % 2 == 0 ? 1 : 0] -= 100;
  const std::vector<ScoreColumn> columns = {{MembershipScore::kSimA, 10},
                                            {MembershipScore::kSimA, 20}};
  const auto results = evaluate_attacks(columns, members, others);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].column.timestep, 20);
  EXPECT_EQ(results[0].selection_auroc, 1);
  EXPECT_LT(results[0].auroc.value, 0.9);
  members.records.resize(19);
  EXPECT_THROW(evaluate_attacks(columns, members, others), UsageError);
}

TEST_F(AttackTest, RecordsInBothStoresAreFound) {
  auto images = random_images(10, 1);
  const RecordStore members = write_store(folder_ / "members", images);
  auto mixed = random_images(6, 2);
  mixed[1] = images[7];
  mixed[4] = images[2];
  mixed[5] = images[2];
  const RecordStore others = write_store(folder_ / "others", mixed);
  EXPECT_THAT(records_in_both(members, others, {0, 1, 2, 3, 4, 5}), ElementsAre(1, 4, 5));
  EXPECT_THAT(records_in_both(members, others, {0, 4}), ElementsAre(4));
}

TEST_F(AttackTest, LabelsComeFromTheStoreAndAStopSignalEndsIt) {
  const RecordStore store = write_store(folder_ / "store", random_images(12, 3), 8, 3);
  std::multiset<int64_t> seen;
  const DenoiserFn spy = [&](const at::Tensor& x, const at::Tensor&, const at::Tensor& labels) {
    for (int64_t i = 0; i < labels.size(0); ++i) seen.insert(labels[i].item<int64_t>());
    return x;
  };
  MembershipOptions options;
  options.scores = {MembershipScore::kSimA};
  options.timesteps = {3};
  const DiffusionMembership scorer(spy, NoiseSchedule({}), Prediction::kEpsilon, options);
  int64_t done = 0;
  score_records(store, all_of(store), scorer, true, 5, [&](int64_t so_far) { done = so_far; });
  EXPECT_EQ(done, 12);
  EXPECT_THAT(seen, ElementsAre(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2));
  set_stop_requested(true);
  EXPECT_THROW(score_records(store, all_of(store), scorer, true, 5), Interrupted);
  set_stop_requested(false);
}

// Networks ----------------------------------------------------------------------------------------

UNet2DConfig small_network() {
  UNet2DConfig config;
  config.sample_size = {{8, 8}};
  config.in_channels = config.out_channels = 1;
  config.down_block_types = {"DownBlock2D", "DownBlock2D"};
  config.up_block_types = {"UpBlock2D", "UpBlock2D"};
  config.block_out_channels = {16, 32};
  config.layers_per_block = 1;
  config.norm_num_groups = 4;
  config.add_attention = false;
  return config;
}

/// Adam on the plain mean loss of all images, without clipping or noise.
void overfit(UNet2D& network, const at::Tensor& images, const NoiseSchedule& schedule, int steps) {
  std::vector<at::Tensor> first, second;
  const auto parameters = network.parameters();
  for (const Parameter* parameter : parameters) {
    first.push_back(at::zeros_like(parameter->value));
    second.push_back(at::zeros_like(parameter->value));
  }
  for (int step = 1; step <= steps; ++step) {
    const int64_t n = images.size(0);
    const at::Tensor t = at::randint(0, 400, {n}, at::kLong), eps = at::randn_like(images);
    std::vector<float> alphas;
    for (int64_t i = 0; i < n; ++i) alphas.push_back(schedule.alpha_cumprod(t[i].item<int64_t>()));
    const at::Tensor alpha = at::tensor(at::ArrayRef<float>(alphas)).view({-1, 1, 1, 1});
    const at::Tensor noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * eps;
    (network.forward(noisy, t, {}, nullptr) - eps).square().mean().backward();
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      at::Tensor& value = parameters[i]->value;
      if (!value.grad().defined()) continue;
      first[i].mul_(0.9).add_(value.grad(), 0.1);
      second[i].mul_(0.99).addcmul_(value.grad(), value.grad(), 0.01);
      const at::Tensor m = first[i] / (1 - std::pow(0.9, step));
      value.sub_(4e-3 * m / ((second[i] / (1 - std::pow(0.99, step))).sqrt() + 1e-8));
      value.mutable_grad().reset();
    }
  }
}

TEST_F(AttackTest, OverfittingIsFoundAndAFreshNetworkShowsNothing) {
  at::manual_seed(1);
  const RecordStore members = write_store(folder_ / "members", random_images(24, 1));
  const RecordStore others = write_store(folder_ / "others", random_images(100, 2));
  const NoiseSchedule schedule({});
  UNet2D network(small_network());
  network.name_parameters();
  network.initialise(3);
  for (const AttackResult& result : attack(unet_denoiser(network), schedule, members, others, {})) {
    EXPECT_LT(result.auroc.lower, 0.5) << result.column.name();
    EXPECT_GT(result.auroc.upper, 0.5) << result.column.name();
  }
  overfit(network, tensor_of(members), schedule, 450);
  // SecMI needs a network that has learnt to denoise well: longer than a test may take.
  MembershipOptions options;
  options.scores = {MembershipScore::kLoss, MembershipScore::kSimA, MembershipScore::kPia};
  for (const AttackResult& result :
       attack(unet_denoiser(network), schedule, members, others, options))
    EXPECT_GT(result.auroc.lower, 0.7) << result.column.name();
}

}  // namespace
}  // namespace sfumato
