#include <fmt/format.h>

#include <algorithm>

#include "kernels/lane_math.h"
#include "sfumato/grad/gradient_engine.h"

namespace sfumato {
namespace {

// Rates of the reference machine (two cores with AVX-512). Only their ratios decide.
constexpr double kFloat32FlopsPerS = 3.5e11;
constexpr double kBf16FlopsPerS = 7e11;
constexpr double kFloat64FlopsPerS = 6e10;
constexpr double kTapFlopsPerS = 8e9;  ///< the shift identity's sum over kernel taps
constexpr double kBytesPerS = 1.5e10;

}  // namespace

LayerChoice choose_algorithm(const LayerWork& work, AlgorithmPolicy policy) {
  LayerChoice choice;
  choice.work = work;
  const double b = static_cast<double>(work.examples), t = static_cast<double>(work.tokens);
  const double tin = static_cast<double>(work.input_tokens);
  const double c = static_cast<double>(work.input_channels);
  const double d = static_cast<double>(work.fan_in), p = static_cast<double>(work.fan_out);
  const double weight_gradient = 2 * b * t * d * p / kFloat32FlopsPerS;
  const double kept_gradient = work.in_bf16 ? 2 * b * t * d * p / kBf16FlopsPerS : weight_gradient;
  // Keep: the gradient is written once, read for its norm and read for the sum.
  choice.keep_seconds = kept_gradient + 3 * 4 * b * p * d / kBytesPerS;
  choice.keep_bytes = 4 * b * p * d;
  // Gram: two Gram matrices and one weighted gradient; of the inputs either all pixels, copied in
  // float64, and a sum over taps, or where lanes fit every pair of unfolded tokens.
  const double taps = t > 1 ? b * (d / std::max(c, 1.0)) * t * t / kTapFlopsPerS : 0;
  const double of_pixels =
      2 * b * tin * tin * c / kFloat64FlopsPerS + taps + 24 * b * (tin * c + t * p) / kBytesPerS;
  const double of_pairs = b * t * t * d / kFloat64FlopsPerS;
  const bool lanes_fit = work.input_channels % kLanes == 0 && work.fan_in > work.input_channels;
  choice.gram_seconds = weight_gradient + 2 * b * t * t * p / kFloat64FlopsPerS +
                        (lanes_fit ? std::min(of_pixels, of_pairs) : of_pixels);
  choice.gram_bytes = 4 * b * (tin * c + t * p);
  const bool gram_is_cheaper = choice.gram_seconds < choice.keep_seconds;
  const bool gram_wanted =
      policy == AlgorithmPolicy::kGram || (policy == AlgorithmPolicy::kAuto && gram_is_cheaper);
  choice.algorithm = gram_wanted && work.gram_possible ? Algorithm::kGram : Algorithm::kKeep;
  return choice;
}

std::string plan_name(const LayerPlan& plan) {
  const char* algorithm = plan.algorithm == Algorithm::kKeep   ? "keep"
                          : plan.algorithm == Algorithm::kGram ? "gram"
                                                               : "direct";
  return fmt::format("{} by {}", algorithm, plan.route == Route::kKernel ? "kernel" : "library");
}

LayerChoice choose_algorithm(const LayerWork& work, AlgorithmPolicy policy,
                             const std::vector<LayerCandidate>& candidates, Tuner& tuner) {
  LayerChoice choice = choose_algorithm(work, AlgorithmPolicy::kKeep);  // its sizes
  const auto wanted = [policy](Algorithm algorithm) {
    return policy == AlgorithmPolicy::kAuto ||
           algorithm == (policy == AlgorithmPolicy::kKeep   ? Algorithm::kKeep
                         : policy == AlgorithmPolicy::kGram ? Algorithm::kGram
                                                            : Algorithm::kDirect);
  };
  std::vector<Tuner::Candidate> allowed;
  std::vector<LayerPlan> plans;
  for (const bool fallback : {false, true}) {
    for (const LayerCandidate& candidate : candidates) {
      if (!fallback ? !wanted(candidate.plan.algorithm)
                    : candidate.plan.algorithm != Algorithm::kKeep)
        continue;
      plans.push_back(candidate.plan);
      allowed.push_back({plan_name(candidate.plan), candidate.run});
    }
    if (!plans.empty()) break;
  }
  const Tuner::Result result = tuner.fastest(work.shape, allowed);
  choice.algorithm = plans[result.fastest].algorithm;
  choice.route = plans[result.fastest].route;
  for (size_t i = 0; i < result.seconds.size(); ++i)
    choice.measured.emplace_back(plans[i], result.seconds[i]);
  return choice;
}

}  // namespace sfumato
