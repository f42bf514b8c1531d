#include <fmt/format.h>
#include "sfumato/privacy/gaussian_mechanism.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/audit/canaries.h"
#include "sfumato/core/bound_text.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

std::string one_run_line(const char* name, const OneRunBound& bound, double attainable) {
  return fmt::format(
      "  {:<28} {:>8}   {} of {} guesses right; this many canaries show {} at most\n", name,
      lower_bound_text(bound.epsilon), bound.correct, bound.guesses, upper_bound_text(attainable));
}

std::string verdict(const CanaryReport& r) {
  if (r.steinke.epsilon > r.claim.epsilon)
    return fmt::format(
        "CONTRADICTS the claim: the one-run lower bound {} is above {}. A mechanism that is what "
        "it\nclaims shows this in at most {:.3g} of audits.\n",
        lower_bound_text(r.steinke.epsilon), epsilon_text(r.claim.epsilon),
        1 - r.options.confidence);
  if (r.profile.contradicts())
    return fmt::format(
        "CONTRADICTS the claim: the guesses are better by {} than its privacy profile allows "
        "at epsilon {}.\nA mechanism that is what it claims shows this in at most {:g} of "
        "audits.\n",
        lower_bound_text(r.profile.excess, 3), r.profile.epsilon, r.profile.alpha);
  std::string text = "consistent with the claim.\n";
  if (r.mu_beyond_claim())
    text += fmt::format(
        "BUT mu is estimated beyond the claim's: no contradiction at {:g}, a reason to repeat the "
        "audit with\nmore canaries and to run the conformance audit.\n",
        r.profile.alpha);
  return text;
}

Json bound_json(const OneRunBound& bound, double attainable) {
  return {{"epsilon_lower", bound.epsilon},
          {"guesses", bound.guesses},
          {"correct", bound.correct},
          {"attainable", attainable}};
}

}  // namespace

std::string to_text(const CanaryReport& r) {
  const double delta = r.options.delta;
  std::string text = fmt::format(
      "Claim: epsilon {} at delta {} for {} steps of sample rate {} and noise multiplier {} "
      "({} adjacency,\n       {} accountant), which is about mu {}\n"
      "Run: {} canaries, {} of them in by secret coins, each sampled by itself; {:.1f} s\n\n",
      epsilon_text(r.claim.epsilon), delta, r.phase.steps, r.phase.sample_rate,
      r.phase.noise_multiplier, to_string(r.claim.adjacency), to_string(r.claim.accountant),
      upper_bound_text(r.claimed_mu), r.options.canaries, r.in, r.seconds);
  text += fmt::format("Epsilon is at least, with confidence {:g}:\n", r.options.confidence);
  text += one_run_line("one run (Steinke)", r.steinke, r.attainable_steinke);
  text += one_run_line("one run, if Gaussian (f-DP)", r.fdp, r.attainable_fdp);
  text += fmt::format(
      "  {:<28} {:>8}   canaries independent; {} of {} in missed, {} of {} out accused\n",
      "Clopper-Pearson", lower_bound_text(r.independent_epsilon), r.errors.false_negatives,
      r.errors.positives, r.errors.false_positives, r.errors.negatives);
  text += fmt::format(
      "Estimate, if Gaussian: mu {:.4f} in [{}, {}], claim {}; epsilon {:.4f} in [{}, {}]{}\n",
      r.mu.estimate, lower_bound_text(r.mu.lower), upper_bound_text(r.mu.upper),
      upper_bound_text(r.claimed_mu), gaussian_epsilon(r.mu.estimate, delta),
      lower_bound_text(gaussian_epsilon(r.mu.lower, delta)),
      upper_bound_text(gaussian_epsilon(r.mu.upper, delta)),
      r.mu_beyond_claim() ? "  BEYOND THE CLAIM" : "");
  text += "\nVerdict: " + verdict(r);
  if (!r.contradicts())
    text +=
        "A lower bound far below the claim is what a correct mechanism shows: one run proves "
        "little, "
        "whatever the\ntrue epsilon is. It is no evidence of a mistake in the claim, and it is not "
        "the "
        "true epsilon.\n";
  return text;
}

Json to_json(const CanaryReport& r) {
  return {{"audit", "canaries"},
          {"verdict", r.contradicts() ? "contradicts the claim" : "consistent"},
          {"claim",
           {{"epsilon", finite(r.claim.epsilon)},
            {"delta", r.options.delta},
            {"mu", finite(r.claimed_mu)},
            {"adjacency", to_string(r.claim.adjacency)},
            {"accountant", to_string(r.claim.accountant)},
            {"sample_rate", r.phase.sample_rate},
            {"noise_multiplier", r.phase.noise_multiplier},
            {"steps", r.phase.steps}}},
          {"canaries", r.options.canaries},
          {"in", r.in},
          {"confidence", r.options.confidence},
          {"one_run", bound_json(r.steinke, r.attainable_steinke)},
          {"one_run_fdp", bound_json(r.fdp, r.attainable_fdp)},
          {"independent",
           {{"epsilon_lower", r.independent_epsilon},
            {"positives", r.errors.positives},
            {"false_negatives", r.errors.false_negatives},
            {"negatives", r.errors.negatives},
            {"false_positives", r.errors.false_positives}}},
          {"gdp",
           {{"mu", r.mu.estimate},
            {"mu_lower", r.mu.lower},
            {"mu_upper", finite(r.mu.upper)},
            {"epsilon", finite(gaussian_epsilon(r.mu.estimate, r.options.delta))},
            {"epsilon_lower", gaussian_epsilon(r.mu.lower, r.options.delta)},
            {"epsilon_upper", finite(gaussian_epsilon(r.mu.upper, r.options.delta))},
            {"beyond_claim", r.mu_beyond_claim()}}},
          {"profile_test",
           {{"alpha", r.profile.alpha},
            {"epsilon", r.profile.epsilon},
            {"excess", finite(r.profile.excess)},
            {"contradicts", r.profile.contradicts()}}},
          {"seconds", r.seconds}};
}

}  // namespace sfumato
