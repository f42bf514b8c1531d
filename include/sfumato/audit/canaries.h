#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sfumato/audit/mechanism_under_test.h"
#include "sfumato/audit/statistics.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

struct CanaryOptions {
  int64_t canaries = 5000;
  double delta = 1e-5;
  double confidence = 0.95;
};

/// UsageError for options that no audit can have.
void check_options(const CanaryOptions& options);

/// A table of one weight per canary: canary j's gradient is far above the clip norm and touches
/// weight j alone (a Dirac canary; Nasr et al. 2023), so that canaries do not disturb each other.
class CanaryProbe {
 public:
  CanaryProbe(int64_t canaries, const ClipOptions& clip,
              std::shared_ptr<Communicator> ranks = nullptr);
  ~CanaryProbe();
  /// The canaries of a step as a physical batch.
  ProbeBatch batch(std::span<const int64_t> canaries);
  GradientSource source();

 private:
  struct Network;
  std::unique_ptr<Network> network_;
  double scale_;
};

/// Whether independent outcomes fit the whole privacy profile that is claimed: a mechanism that is
/// (eps, delta(eps))-DP for all eps has 1 - FNR <= e^eps FPR + delta(eps), and the same with FNR
/// and FPR exchanged.
struct ProfileTest {
  double alpha = 0;    ///< a mechanism that is what it claims fails with at most this probability
  ErrorRates upper;    ///< of the error rates, at alpha / 2 each
  double epsilon = 0;  ///< where the profile is exceeded most
  double excess = 0;   ///< by how much the guesses are better than allowed; above 0: contradiction
  bool contradicts() const { return excess > 0; }
};
/// `events`: what is claimed, in pessimistic accounting by privacy loss distributions.
ProfileTest test_profile(const ErrorCounts& counts, std::span<const PrivacyEvent> events,
                         double claimed_epsilon, double alpha);

struct CanaryReport {
  Phase phase;             ///< what was run
  PrivacyStatement claim;  ///< of that phase, zero-out adjacency: a canary is there or is not
  CanaryOptions options;
  int64_t in = 0;            ///< canaries whose coin put them in
  OneRunBound steinke, fdp;  ///< at the confidence, eight pre-registered numbers of guesses
  double attainable_steinke = 0, attainable_fdp = 0;
  /// Half the canaries, at the threshold that did best on the other half.
  ErrorCounts errors;
  double independent_epsilon = 0;  ///< Clopper-Pearson, canaries being independent
  MuEstimate mu;                   ///< at the confidence
  double claimed_mu = 0;           ///< of the Gaussian mechanism with the claim's epsilon and delta
  ProfileTest profile;
  double seconds = 0;

  /// Steinke's bound is above the claim, or the profile test says no.
  bool contradicts() const;
  /// The estimate of mu, its lower end included, is beyond the claim's.
  bool mu_beyond_claim() const { return mu.lower > claimed_mu; }
};

/// Probability below which a correct mechanism fails the profile test.
inline constexpr double kProfileAlpha = 1e-6;

/// Runs `plan.steps` steps of `mechanism` (made for `network.source()`) on the canaries alone and
/// judges it against `plan`. `coin_seed`: coins for tests; without one from the operating system.
CanaryReport audit_canaries(MechanismUnderTest& mechanism, CanaryProbe& network,
                            const MechanismPlan& plan, const CanaryOptions& options,
                            std::optional<uint64_t> coin_seed = std::nullopt);
/// Production, on several ranks where there are some: a collective call.
CanaryReport audit_canaries(const MechanismPlan& plan, const CanaryOptions& options,
                            std::optional<uint64_t> test_seed = std::nullopt,
                            std::shared_ptr<Communicator> ranks = nullptr);

std::string to_text(const CanaryReport& report);
nlohmann::ordered_json to_json(const CanaryReport& report);

}  // namespace sfumato
