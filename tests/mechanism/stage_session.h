#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "sfumato/mechanism/session.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/privacy/secure_random.h"
#include "support/temp_folder.h"

namespace sfumato::test {

// Two-sided normal quantile of 1e-6: no check here raises a false alarm more often. (Keys are
// fixed, so a build either passes or not; the bounds say what it could have been.)
constexpr double kQuantile = 4.9;

inline StagePlan histogram_stage(double noise_multiplier) {
  return {.name = "label_histogram", .event = Phase{1, noise_multiplier, 1}};
}

inline StagePlan central_stage(double sample_rate, double noise_multiplier, int64_t releases,
                               double clip_norm_l2) {
  return {.name = "central_images",
          .event = Phase{sample_rate, noise_multiplier, releases},
          .clip_norm_l2 = clip_norm_l2};
}

inline MechanismPlan plan_of(const std::vector<StagePlan>& stages,
                             Adjacency adjacency = Adjacency::kZeroOut) {
  MechanismPlan plan;
  plan.adjacency = adjacency;
  plan.sample_rate = 0.5;
  plan.noise_multiplier = 1;
  plan.steps = 1;
  plan.stages = stages;
  return plan;
}

/// A session that may release these stages, with a reproducible key.
struct Session {
  explicit Session(const std::vector<StagePlan>& stages, uint64_t seed = 1,
                   Adjacency adjacency = Adjacency::kZeroOut)
      : mechanism(MechanismSession::create(
            plan_of(stages, adjacency), {.ledger = folder / "ledger.jsonl", .run = folder.path()},
            SecureKey::insecure_for_tests(seed))) {}
  TempFolder folder;
  MechanismSession mechanism;
};

/// What a session is made of, for tests of a single release.
struct Charges {
  explicit Charges(const std::vector<StagePlan>& stages, uint64_t seed = 1)
      : key(SecureKey::insecure_for_tests(seed)),
        ledger(Ledger::create(folder / "ledger.jsonl", plan_of(stages).to_json(), 1, key)) {}
  TempFolder folder;
  SecureKey key;
  Ledger ledger;
};

struct Moments {
  double mean = 0, variance = 0;
};
inline Moments moments(const std::vector<double>& values) {
  Moments m;
  for (const double v : values) m.mean += v / static_cast<double>(values.size());
  for (const double v : values)
    m.variance += (v - m.mean) * (v - m.mean) / static_cast<double>(values.size() - 1);
  return m;
}

/// Mean 0 and variance `stddev` squared, within what chance allows.
inline void expect_noise(const std::vector<double>& values, double stddev) {
  const double n = static_cast<double>(values.size());
  const Moments m = moments(values);
  EXPECT_NEAR(m.mean, 0, kQuantile * stddev / std::sqrt(n));
  EXPECT_NEAR(m.variance / (stddev * stddev), 1, kQuantile * std::sqrt(2 / n)) << "n = " << n;
}

}  // namespace sfumato::test
