#include "sfumato/audit/canaries.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>

#include "sfumato/core/error.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/nn/layers.h"
#include "sfumato/privacy/gaussian_mechanism.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {
namespace {

/// Gradient norms of canaries in clip norms: clipping has work to do, automatic clipping as well.
constexpr double kScale = 1000;
constexpr int kThresholds = 64;
constexpr int kProfilePoints = 48;

std::vector<bool> toss_coins(int64_t count, std::optional<uint64_t> seed) {
  const SecureKey key = seed ? SecureKey::insecure_for_tests(*seed) : SecureKey::generate();
  ChaChaStream stream(key, StreamDomain::kSideStatistic, 0);
  std::vector<bool> coins;
  for (int64_t i = 0; i < count; ++i) coins.push_back((stream.next() & 1) != 0);
  return coins;
}

/// Those of rank 0 on all ranks.
std::vector<bool> same_coins(std::vector<bool> coins, const ParameterSlices* slices) {
  if (slices == nullptr) return coins;
  const std::string sides = slices->ranks().from_leader(std::accumulate(
      coins.begin(), coins.end(), std::string(),
      [](std::string all, bool coin) { return std::move(all) + (coin ? '1' : '0'); }));
  for (std::size_t i = 0; i < coins.size(); ++i) coins[i] = sides[i] == '1';
  return coins;
}

/// The privacy loss of one step at x, in clip norms on the sum before the divisor:
/// ln(1 - q + q e^((2x - 1) / 2 sigma^2)), the most powerful score there is.
double privacy_loss(double x, double q, double sigma) {
  const double exponent = (2 * x - 1) / (2 * sigma * sigma);
  if (q == 1) return exponent;
  const double a = std::log1p(-q), b = std::log(q) + exponent;
  return std::max(a, b) + std::log1p(std::exp(-std::abs(a - b)));
}

std::vector<double> run(MechanismUnderTest& mechanism, CanaryProbe& network,
                        const MechanismPlan& plan, const std::vector<bool>& is_in) {
  const auto count = static_cast<int64_t>(is_in.size());
  std::vector<double> scores(is_in.size(), 0.0);
  for (int64_t step = 0; step < plan.steps; ++step) {
    std::vector<int64_t> batch;
    for (const int64_t canary : mechanism.sample(step, count))
      if (is_in[static_cast<size_t>(canary)]) batch.push_back(canary);
    if (!batch.empty()) mechanism.accumulate(network.batch(batch));
    const std::vector<at::Tensor> gradient = mechanism.release(step);
    const at::Tensor seen = gradient.front().to(at::kDouble).contiguous();
    const double* values = seen.const_data_ptr<double>();
    for (size_t i = 0; i < scores.size(); ++i)
      scores[i] += privacy_loss(values[i] * plan.expected_batch_size / plan.clip_norm_l2,
                                plan.sample_rate, plan.noise_multiplier);
  }
  return scores;
}

/// Errors of "score above the threshold: in" on canaries `first`, `first` + 2, ...
ErrorCounts count_errors(const std::vector<double>& scores, const std::vector<bool>& is_in,
                         size_t first, double threshold) {
  ErrorCounts counts;
  for (size_t i = first; i < scores.size(); i += 2) {
    const bool guess = scores[i] > threshold;
    ++(is_in[i] ? counts.positives : counts.negatives);
    if (is_in[i] && !guess) ++counts.false_negatives;
    if (!is_in[i] && guess) ++counts.false_positives;
  }
  return counts;
}

/// The threshold that proves the largest mu on the even canaries.
double best_threshold(const std::vector<double>& scores, const std::vector<bool>& is_in,
                      double alpha) {
  std::vector<double> sorted;
  for (size_t i = 0; i < scores.size(); i += 2) sorted.push_back(scores[i]);
  std::sort(sorted.begin(), sorted.end());
  double best = sorted[sorted.size() / 2], best_mu = -1;
  for (int i = 1; i < kThresholds; ++i) {
    const size_t at = sorted.size() * static_cast<size_t>(i) / kThresholds;
    if (at == 0) continue;
    const double threshold = (sorted[at - 1] + sorted[at]) / 2;
    const double mu = estimate_mu(count_errors(scores, is_in, 0, threshold), alpha).lower;
    if (mu > best_mu) best_mu = mu, best = threshold;
  }
  return best;
}

}  // namespace

void check_options(const CanaryOptions& options) {
  if (options.canaries < 16 || options.canaries > 10'000'000)
    throw UsageError(fmt::format("{} canaries are outside 16 ... 10000000", options.canaries));
  if (!(options.confidence > 0 && options.confidence < 1))
    throw UsageError(fmt::format("confidence {} is outside (0, 1)", options.confidence));
  check_delta(options.delta);
}

struct CanaryProbe::Network : Module {
  Network(int64_t canaries, const ClipOptions& clip, std::shared_ptr<Communicator> ranks)
      : table(canaries, 1),
        step((add_child("canaries", table), name_parameters(), parameters()), clip,
             std::move(ranks)) {}
  Embedding table;
  ProbeStep step;
};

CanaryProbe::CanaryProbe(int64_t canaries, const ClipOptions& clip,
                         std::shared_ptr<Communicator> ranks)
    : network_(std::make_unique<Network>(canaries, clip, std::move(ranks))),
      scale_(kScale * clip.clip_norm_l2) {}

CanaryProbe::~CanaryProbe() = default;

GradientSource CanaryProbe::source() { return network_->step.source(); }

ProbeBatch CanaryProbe::batch(std::span<const int64_t> canaries) {
  const auto count = static_cast<int64_t>(canaries.size());
  const at::Tensor indices = at::empty({count}, at::kLong);
  std::copy(canaries.begin(), canaries.end(), indices.mutable_data_ptr<int64_t>());
  ProbeBatch result;
  result.examples = count;
  result.losses = [this, indices](Tape* tape) {
    return network_->table.forward(indices, tape).squeeze(1).mul(scale_);
  };
  result.part = [this, all = std::vector<int64_t>(canaries.begin(), canaries.end())](int64_t first,
                                                                                     int64_t size) {
    return batch({all.data() + first, static_cast<size_t>(size)});
  };
  return result;
}

ProfileTest test_profile(const ErrorCounts& counts, std::span<const PrivacyEvent> events,
                         double claimed_epsilon, double alpha) {
  ProfileTest test;
  test.alpha = alpha;
  test.upper = upper_error_rates(counts, alpha);
  test.excess = -std::numeric_limits<double>::infinity();
  if (!std::isfinite(claimed_epsilon)) return test;
  const auto [fn, fp] = test.upper;
  for (int i = 0; i <= kProfilePoints; ++i) {
    const double epsilon = 1.5 * claimed_epsilon * i / kProfilePoints;
    // Nothing can be exceeded where even delta 0 would allow the guesses.
    const double above = std::max(1 - fn - std::exp(epsilon) * fp, 1 - fp - std::exp(epsilon) * fn);
    if (above <= std::max(0.0, test.excess)) continue;
    const double delta =
        account_delta(Accountant::kPld, events, epsilon, Adjacency::kZeroOut).delta;
    if (above - delta > test.excess) test.excess = above - delta, test.epsilon = epsilon;
  }
  return test;
}

CanaryReport audit_canaries(MechanismUnderTest& mechanism, CanaryProbe& network,
                            const MechanismPlan& plan, const CanaryOptions& options,
                            std::optional<uint64_t> coin_seed) {
  check_options(options);
  const auto start = std::chrono::steady_clock::now();
  CanaryReport report;
  report.options = options;
  report.phase = {plan.sample_rate, plan.noise_multiplier, plan.steps};
  const PrivacyEvent events[] = {report.phase};
  report.claim = account_epsilon(Accountant::kPld, events, options.delta, Adjacency::kZeroOut);
  report.claimed_mu = gaussian_mu(report.claim.epsilon, options.delta);

  const std::vector<bool> is_in =
      same_coins(toss_coins(options.canaries, coin_seed), mechanism.slices());
  report.in = std::count(is_in.begin(), is_in.end(), true);
  const std::vector<double> scores = run(mechanism, network, plan, is_in);

  const double alpha = 1 - options.confidence, delta = options.delta;
  report.steinke = one_run_bound(scores, is_in, delta, alpha, OneRunMethod::kSteinke);
  report.fdp = one_run_bound(scores, is_in, delta, alpha, OneRunMethod::kFdp);
  report.attainable_steinke =
      attainable_one_run_epsilon(options.canaries, delta, alpha, OneRunMethod::kSteinke);
  report.attainable_fdp =
      attainable_one_run_epsilon(options.canaries, delta, alpha, OneRunMethod::kFdp);
  report.errors = count_errors(scores, is_in, 1, best_threshold(scores, is_in, kProfileAlpha));
  report.independent_epsilon = clopper_pearson_epsilon(report.errors, delta, alpha);
  report.mu = estimate_mu(report.errors, alpha);
  report.profile = test_profile(report.errors, events, report.claim.epsilon, kProfileAlpha);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

CanaryReport audit_canaries(const MechanismPlan& plan, const CanaryOptions& options,
                            std::optional<uint64_t> test_seed,
                            std::shared_ptr<Communicator> ranks) {
  if (!plan.is_private)
    throw UsageError("canaries: the plan is not private; there is no claim to audit");
  check_options(options);
  CanaryProbe network(options.canaries, clip_options(plan), std::move(ranks));
  ProductionMechanism mechanism(plan, network.source(), test_seed);
  return audit_canaries(mechanism, network, plan, options, test_seed);
}

bool CanaryReport::contradicts() const {
  return steinke.epsilon > claim.epsilon || profile.contradicts();
}

}  // namespace sfumato
