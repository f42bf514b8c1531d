// The clipped sum of a diffusion network on real records: what may not change it, and how much one
// record may.
#include "sfumato/train/gradient_step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <list>

#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/generate/diffusion/objective.h"
#include "sfumato/train/batch_loader.h"
#include "sfumato/train/setup.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using Tensors = std::vector<at::Tensor>;

double norm_of(const Tensors& tensors) {
  double squared = 0;
  for (const at::Tensor& t : tensors) squared += t.to(at::kDouble).square().sum().item<double>();
  return std::sqrt(squared);
}

double distance(const Tensors& a, const Tensors& b) {
  double squared = 0;
  for (std::size_t j = 0; j < a.size(); ++j)
    squared += (a[j].to(at::kDouble).sub(b[j].to(at::kDouble))).square().sum().item<double>();
  return std::sqrt(squared);
}

class GradientSteps : public TinyRun {
 protected:
  GradientSteps() {
    settings = config("unused");
    store.emplace(RecordStore::open(folder / "store"));
    network = make_network(*settings);
    schedule.emplace(noise_schedule_options(settings->diffusion));
    diffusion = diffusion_options(settings->diffusion, 2);
  }

  GradientStep step(double clip_norm, Clipping clipping = Clipping::kFlat,
                    AlgorithmPolicy policy = AlgorithmPolicy::kAuto) {
    objectives.emplace_back(*network, *schedule, diffusion);
    return GradientStep(objectives.back(), {clipping, clip_norm, 0.01},
                        {.policy = policy, .tuner = nullptr});
  }

  TrainingBatch load(std::span<const int64_t> records, int64_t physical) const {
    return DiffusionObjective(*network, *schedule, diffusion)
        .draw(load_examples(*store, records, physical), 3, 0);
  }

  Tensors private_sum(GradientStep& gradients, const std::vector<int64_t>& records,
                      int64_t physical) const {
    const auto count = static_cast<int64_t>(records.size());
    for (int64_t first = 0; first < count; first += physical)
      gradients.accumulate_private(load(
          std::span(records).subspan(static_cast<std::size_t>(first),
                                     static_cast<std::size_t>(std::min(physical, count - first))),
          physical));
    return ClippedSumInspector::sums(gradients.take_private());
  }

  std::unique_ptr<Config> settings;
  std::optional<RecordStore> store;
  std::unique_ptr<UNet2D> network;
  std::optional<NoiseSchedule> schedule;
  DiffusionOptions diffusion;
  std::list<DiffusionObjective> objectives;
};

const std::vector<int64_t> kRecords = {1, 4, 8, 15, 16, 23, 39};

TEST_F(GradientSteps, TheClippedSumDoesNotDependOnThePhysicalBatchNorOnTheAlgorithm) {
  GradientStep whole = step(0.05);
  const Tensors expected = private_sum(whole, kRecords, 7);
  for (const AlgorithmPolicy policy :
       {AlgorithmPolicy::kAuto, AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram}) {
    GradientStep gradients = step(0.05, Clipping::kFlat, policy);
    for (const int64_t physical : {1, 2, 3, 7, 10})
      EXPECT_LE(distance(private_sum(gradients, kRecords, physical), expected),
                3e-6 * norm_of(expected))
          << physical;
  }
}

TEST_F(GradientSteps, OneRecordMovesTheSumByTheClipNormAtMost) {
  for (const Clipping clipping : {Clipping::kFlat, Clipping::kPerLayer, Clipping::kAutomatic}) {
    const double clip_norm = 0.02;
    GradientStep gradients = step(clip_norm, clipping);
    const Tensors all = private_sum(gradients, kRecords, 4);
    for (std::size_t i = 0; i < kRecords.size(); ++i) {
      std::vector<int64_t> others = kRecords;
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
      const double moved = distance(all, private_sum(gradients, others, 4));
      EXPECT_LE(moved, clip_norm * (1 + 1e-5)) << "record " << kRecords[i];
      EXPECT_GT(moved, clip_norm * 0.01);
    }
  }
}

TEST_F(GradientSteps, WithoutClippingBothWaysAgree) {
  GradientStep gradients = step(1e6);
  const Tensors with = private_sum(gradients, kRecords, 4);
  const BatchStatistics statistics = gradients.accumulate_plain(load(kRecords, 9));
  const Tensors plain = gradients.take_plain();
  EXPECT_EQ(statistics.counts().counted, 7) << "padding is no example";
  EXPECT_LE(distance(with, plain), 1e-5 * norm_of(plain));
  for (const at::Tensor& zero : gradients.take_plain()) EXPECT_EQ(norm_of({zero}), 0);
}

TEST_F(GradientSteps, LossesOfBothWaysAgree) {
  GradientStep gradients = step(1.0);
  const TrainingBatch batch = load(kRecords, 7);
  const at::Tensor with = gradients.accumulate_private(batch).loss;
  EXPECT_TRUE(with.allclose(gradients.accumulate_plain(batch).loss, 1e-5, 1e-6));
}

TEST_F(GradientSteps, VerifyPassesAndLeavesNothingBehind) {
  GradientStep gradients = step(1.0);
  gradients.verify();
  EXPECT_EQ(norm_of(ClippedSumInspector::sums(gradients.take_private())), 0);
}

TEST_F(GradientSteps, VerifyNamesAParameterThatTheLossDoesNotReach) {
  diffusion.num_classes = 0;  // the class table is trainable, but no labels come
  network = [&] {
    auto with_a_spare = config("unused", {"data.num_classes=2"});
    return make_network(*with_a_spare);
  }();
  GradientStep gradients = step(1.0);
  EXPECT_THROW(gradients.verify(), Error);
}

TEST_F(GradientSteps, MemoryGrowsWithThePhysicalBatch) {
  GradientStep gradients = step(1.0);
  for (const bool is_private : {true, false}) {
    const int64_t one = gradients.peak_bytes(1, is_private);
    const int64_t two = gradients.peak_bytes(2, is_private);
    const int64_t eight = gradients.peak_bytes(8, is_private);
    EXPECT_GT(one, 0);
    EXPECT_GT(two, one);
    // Linear, as the choice of the physical batch assumes.
    EXPECT_NEAR(static_cast<double>(eight), static_cast<double>(one + 7 * (two - one)),
                0.25 * static_cast<double>(eight));
  }
}

}  // namespace
}  // namespace sfumato
