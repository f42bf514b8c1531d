#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/audit/mechanism_under_test.h"
#include "sfumato/audit/probe_network.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// One property of a mechanism, as it was found.
struct ConformanceCheck {
  std::string subject;  ///< which network: "layers" or "network"
  std::string group;    ///< "noise", "sampling", "bound", "divisor", "draws", "neighbours", "ranks"
  std::string name;
  double statistic = 0;
  std::optional<double> bound;    ///< the statistic may not exceed it (checks without chance)
  std::optional<double> p_value;  ///< how often a correct mechanism shows this or worse, at most
  bool passed = false;
};

struct ConformanceReport {
  MechanismPlan plan;
  std::vector<ConformanceCheck> checks;
  /// A correct mechanism fails a statistical check with probability below this; all of them
  /// together with probability below kFalseAlarm.
  double level = 0;
  double seconds = 0;
  int64_t ranks = 1;  ///< that took the steps

  bool conforms() const;
  /// "noise: variance of all coordinates (layers)", ...
  std::vector<std::string> failures() const;
};

/// Probability below which a correct mechanism raises an alarm in a whole audit.
inline constexpr double kFalseAlarm = 1e-6;
/// Slack of bounds in L2, relative: float32 rounding of sums, and tokens that cancel.
inline constexpr double kNormMargin = 1e-4;

struct ConformanceOptions {
  int64_t noise_coordinates = 2'400'000;  ///< noise values that are looked at, at least
  double inclusions = 160'000;            ///< expected (1 - q)-weighted inclusions looked at
  int64_t sampled_steps = 256;
  int64_t most_sampler_words = 200'000'000;
};

/// Collects what audits find about one mechanism after another.
class ConformanceAudit {
 public:
  /// `plan`: what the mechanism claims: sample rate, noise multiplier, clip norm and kind of
  /// clipping, expected batch.
  explicit ConformanceAudit(const MechanismPlan& plan, const ConformanceOptions& options = {});

  /// Group 2: who joins a step.
  void check_sampling(MechanismUnderTest& mechanism);
  /// Groups 3, 5 and 6: what one example can add to the sum. `network` makes the batches that the
  /// mechanism's gradients come from.
  void check_gradients(MechanismUnderTest& mechanism, ProbeNetwork& network,
                       const std::string& subject);
  /// Groups 1 and 4: noise, divisor, charges, and what reaches the weights.
  void check_release(MechanismUnderTest& mechanism, ProbeNetwork& network,
                     const std::string& subject);

  /// Group 7, where several ranks take the steps: one sample that they share out, the sum of one
  /// process, the same weights everywhere, noise of each rank's own. Collective.
  void check_ranks(MechanismUnderTest& mechanism, ProbeNetwork& network,
                   const std::string& subject);

  /// Decides: every statistical check at kFalseAlarm over their number.
  ConformanceReport report() const;

 private:
  friend class CheckWriter;
  MechanismPlan plan_;
  ConformanceOptions options_;
  std::vector<ConformanceCheck> checks_;
  int64_t ranks_ = 1;
};

/// All groups for `mechanism` on the layers of src/nn.
ConformanceReport audit_conformance(MechanismUnderTest& mechanism, ProbeNetwork& network,
                                    const MechanismPlan& plan,
                                    const ConformanceOptions& options = {});
/// Production on the layers of src/nn. `test_seed` as for ProductionMechanism. `ranks` (null: this
/// process alone) take every step together, as in training: a collective call, whose report is the
/// same on all.
ConformanceReport audit_conformance(const MechanismPlan& plan,
                                    std::optional<uint64_t> test_seed = std::nullopt,
                                    const std::shared_ptr<Communicator>& ranks = nullptr);
/// Production with the plan, the network and the loss of a configuration besides.
ConformanceReport audit_conformance(const Config& config,
                                    const std::shared_ptr<Communicator>& ranks = nullptr);

/// What is audited without a configuration: sample rate 0.05, noise multiplier 1, clip norm 1,
/// expected batch 20.
MechanismPlan default_audit_plan();

/// A table with a row per check and the verdict.
std::string to_text(const ConformanceReport& report);
nlohmann::ordered_json to_json(const ConformanceReport& report);

}  // namespace sfumato
