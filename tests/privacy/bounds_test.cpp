#include "sfumato/privacy/bounds.h"

#include <gtest/gtest.h>

#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/privacy/mechanism.h"
#include "src/privacy/phase_pairs.h"

namespace sfumato {
namespace {

TEST(Bounds, ClipNormsAndNoiseOutsideFloat32sReachAreRefused) {
  MechanismPlan plan;
  plan.sample_rate = 0.01;
  plan.noise_multiplier = 1;
  plan.steps = 10;
  EXPECT_NO_THROW(plan.validate());
  for (const double clip_norm : {1e-42, 1e-39, 9e-10, 1.1e9, 1e30}) {
    plan.clip_norm_l2 = clip_norm;
    EXPECT_THROW(plan.validate(), UsageError) << clip_norm;
  }
  for (const double clip_norm : {1e-9, 1e-3, 1.0, 1e9}) {
    plan.clip_norm_l2 = clip_norm;
    EXPECT_NO_THROW(plan.validate()) << clip_norm;
  }
  // sigma C: noise below and above what float32 resolves beside the sum.
  plan.clip_norm_l2 = 1e-9;
  plan.noise_multiplier = 1e-4;
  EXPECT_THROW(plan.validate(), UsageError);
  plan.clip_norm_l2 = 1e9;
  plan.noise_multiplier = 1e4;
  EXPECT_THROW(plan.validate(), UsageError);
  // The bound of a stage's images likewise; what was declared is not made here.
  plan.clip_norm_l2 = plan.noise_multiplier = 1;
  plan.stages = {{.name = "central_images", .event = Phase{0.1, 10, 5}, .clip_norm_l2 = 1e-42}};
  EXPECT_THROW(plan.validate(), UsageError);
  plan.stages[0].declared = true;
  EXPECT_NO_THROW(plan.validate());
}

TEST(Bounds, AutomaticClippingKeepsItsConstantAwayFromZero) {
  MechanismPlan plan;
  plan.sample_rate = 0.01;
  plan.noise_multiplier = 1;
  plan.steps = 10;
  plan.clipping = Clipping::kAutomatic;
  for (const double gamma : {0.0, -1.0, 1e-300, 1e-30, 9e-10, std::nan(""), HUGE_VAL}) {
    plan.automatic_gamma = gamma;
    EXPECT_THROW(plan.validate(), UsageError) << gamma;
  }
  for (const double gamma : {1e-9, 0.01, 1e3}) {
    plan.automatic_gamma = gamma;
    EXPECT_NO_THROW(plan.validate()) << gamma;
  }
  // A norm that seems to be 0 and is 2^-46, the most that can vanish, stays below C.
  EXPECT_LT(0x1p-46 / (0 + kLeastAutomaticGamma), 1);
  // Counts for this clipping alone.
  plan.automatic_gamma = 1e-300;
  plan.clipping = Clipping::kFlat;
  EXPECT_NO_THROW(plan.validate());
}

TEST(Bounds, AdmittedStoresKeepTheBoundOfTheirBatches) {
  // Against the binomial tail: nothing is admitted that exceeds it, and nothing usual refused.
  for (const double b : {0.001, 1.0, 10.0, 256.0, 4096.0, 1e5}) {
    for (const double q : {1e-4, 0.01, 0.3, 0.9, 1.0}) {
      const auto bound = static_cast<std::int64_t>(batch_bound(b));
      std::int64_t admitted = 0;
      for (double n = 1; n < 1e11; n *= 1.07) {
        const auto records = static_cast<std::int64_t>(n);
        try {
          check_batch_bound(records, q, b);
        } catch (const PrivacyError&) {
          break;
        }
        admitted = records;
      }
      EXPECT_LE(binomial_tail(admitted, q, bound + 1), 0x1p-100) << b << " " << q;
      EXPECT_NO_THROW(check_batch_bound(static_cast<std::int64_t>(b / q), q, b)) << b << " " << q;
      EXPECT_GE(static_cast<double>(admitted) * 1.07, 1.03 * b) << "an estimate that errs is kept";
      EXPECT_THROW(check_batch_bound(static_cast<std::int64_t>(2 * (b + 400) / q), q, b),
                   PrivacyError);
    }
  }
}

TEST(Bounds, EveryAdmittedBatchIsAddedUpExactly) {
  for (const std::int64_t ranks : {1, 3, 64})
    for (const std::int64_t physical : {1, 100, 4096})
      for (double b = 1; b < 3e6; b *= 1.2) {
        // The largest share of a rank, by dealing out whole physical batches one by one.
        std::int64_t left = static_cast<std::int64_t>(batch_bound(b)), first = 0;
        for (std::int64_t rank = 0; left > 0; rank = (rank + 1) % ranks) {
          if (rank == 0) first += physical;
          left -= physical;
        }
        bool refused = false;
        try {
          check_exact_sum(b, physical, ranks);
        } catch (const UsageError&) {
          refused = true;
        }
        EXPECT_TRUE(refused || first <= kMostExamplesOfASum / ranks) << b << " in " << physical;
        const bool usual =
            first * ranks < kMostExamplesOfASum / 2 && physical * ranks < kMostExamplesOfASum / 16;
        EXPECT_FALSE(refused && usual) << b << " in " << physical << " by " << ranks;
      }
  EXPECT_THROW(check_exact_sum(1e6, 64, 1), UsageError);
}

}  // namespace
}  // namespace sfumato
