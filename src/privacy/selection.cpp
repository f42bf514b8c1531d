#include "sfumato/privacy/selection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {
namespace {

constexpr const char* kLawName = "truncated_negative_binomial";
constexpr std::int64_t kMostRuns = std::int64_t{1} << 53;

/// ln E[K] at ln gamma = -l <= 0: e^l (1 - e^-l) times eta / (1 - e^(-eta l)), or 1/l for eta 0.
double ln_mean(double eta, double l) {
  if (l == 0) return 0;
  const double share = eta == 0 ? l : -std::expm1(-eta * l) / eta;
  return l + std::log(-std::expm1(-l)) - std::log(share);
}

/// ln (1 - gamma).
double ln_without(double ln_gamma) {
  return ln_gamma < -0.5 ? std::log1p(-std::exp(ln_gamma)) : std::log(-std::expm1(ln_gamma));
}

/// ln of the integral over 0 < t < 1 - gamma of t^(k-1) (1-t)^(eta-1), with t = (1 - gamma)
/// e^(-y/k) and y = e^s: the integrand is analytic for |Im s| < pi / 2 and falls exponentially on
/// the left and doubly so on the right, so that the trapezoid rule is exact to rounding.
double ln_tail_integral(double eta, double ln_gamma, double k) {
  constexpr double kStep = 1.0 / 16;
  const double ln_theta = ln_without(ln_gamma);
  // Left of it the integrand is e^s times a constant.
  const double left = std::min(0.0, ln_gamma + std::log(k)) - 50;
  const double right = std::log(800 + eta);
  std::vector<double> ln_terms;
  for (double s = right; s > left; s -= kStep) {
    const double y = std::exp(s);
    // ln (1 - t), which near t = 1 has no digits left if it is computed so.
    const double ln_rest = std::log(-std::expm1(ln_theta - y / k));
    ln_terms.push_back(s - y + (eta - 1) * ln_rest);
  }
  const double largest = *std::ranges::max_element(ln_terms);
  double sum = 0;
  for (const double term : ln_terms) sum += std::exp(term - largest);
  return k * ln_theta - std::log(k) + largest + std::log(kStep * sum);
}

/// ln Gamma(a + b) - ln Gamma(a), for a >= 1 and b >= 0, without the cancellation of large a.
double ln_gamma_ratio(double a, double b) {
  if (b == 0) return 0;
  if (a < 30) return std::lgamma(a + b) - std::lgamma(a);
  // Stirling; the next term is below 1e-16.
  const auto rest = [](double x) {
    const double square = x * x;
    return (1.0 / 12 - (1.0 / 360 - (1.0 / 1260 - 1 / (1680 * square)) / square) / square) / x;
  };
  return (a + b - 0.5) * std::log1p(b / a) + b * std::log(a) - b + rest(a + b) - rest(a);
}

}  // namespace

Selection make_selection(SelectionFamily family, double eta, double mean_runs) {
  switch (family) {
    case SelectionFamily::kLogarithmic: return {0, mean_runs};
    case SelectionFamily::kGeometric: return {1, mean_runs};
    case SelectionFamily::kNegativeBinomial: break;
  }
  return {eta, mean_runs};
}

void check_selection(const Selection& selection) {
  if (!(selection.mean_runs >= 1 && selection.mean_runs <= kMostMeanRuns))
    throw UsageError(fmt::format(
        "a selection of {} runs on average is outside 1 ... {:g}; 1 is a single run for sure",
        selection.mean_runs, kMostMeanRuns));
  if (!(selection.eta >= 0 && selection.eta <= kLargestEta))
    throw UsageError(
        fmt::format("eta {} of a selection is outside 0 ... {:g}; 0 is the logarithmic law, 1 the "
                    "geometric one",
                    selection.eta, kLargestEta));
}

Selection parse_selection(std::string_view text) {
  const auto refuse = [&](const std::string& why) {
    throw UsageError(fmt::format(
        "selection '{}': {}; it is logarithmic:RUNS, geometric:RUNS or negative_binomial:ETA:RUNS, "
        "with RUNS on average, for example logarithmic:10",
        text, why));
  };
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ':')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  const auto family = find_enum<SelectionFamily>(parts.front());
  if (!family) refuse(fmt::format("'{}' is no law", parts.front()));
  const bool has_eta = *family == SelectionFamily::kNegativeBinomial;
  if (parts.size() != (has_eta ? 3u : 2u))
    refuse(has_eta ? "it needs ETA and RUNS" : "it needs RUNS");
  std::vector<double> numbers;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const auto number = parse_double(parts[i]);
    if (!number) refuse(fmt::format("'{}' is no number", parts[i]));
    numbers.push_back(number.value_or(0));
  }
  const Selection selection = make_selection(*family, numbers.front(), numbers.back());
  check_selection(selection);
  return selection;
}

std::string to_text(const Selection& selection) {
  if (selection.eta == 0) return fmt::format("logarithmic:{}", selection.mean_runs);
  if (selection.eta == 1) return fmt::format("geometric:{}", selection.mean_runs);
  return fmt::format("negative_binomial:{}:{}", selection.eta, selection.mean_runs);
}

nlohmann::ordered_json to_json(const Selection& selection) {
  return {{"law", kLawName}, {"eta", selection.eta}, {"mean_runs", selection.mean_runs}};
}

Selection selection_from_json(const nlohmann::json& json) {
  const auto number = [&](const char* key) {
    return json.is_object() && json.contains(key) && json[key].is_number()
               ? json[key].get<double>()
               : std::numeric_limits<double>::quiet_NaN();
  };
  const Selection selection{number("eta"), number("mean_runs")};
  if (!json.is_object() || json.size() != 3 || !json.contains("law") || json["law"] != kLawName)
    throw DataError(
        fmt::format("a selection is an object of law ('{}'), eta and mean_runs, found {}", kLawName,
                    json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  try {
    check_selection(selection);
  } catch (const UsageError& error) {
    throw DataError(error.what());
  }
  return selection;
}

SelectionLaw::SelectionLaw(const Selection& selection) : selection_(selection) {
  check_selection(selection);
  if (selection.mean_runs == 1) return;
  const double target = std::log(selection.mean_runs);
  // The mean grows with -ln gamma, and is at least e^(l / 2) or so.
  double low = 0, high = 1;
  while (ln_mean(selection.eta, high) < target) high *= 2;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = 0.5 * (low + high);
    if (middle == low || middle == high) break;
    (ln_mean(selection.eta, middle) < target ? low : high) = middle;
  }
  ln_gamma_ = -high;
  ln_norm_ = ln_tail_integral(selection.eta, ln_gamma_, 1);
}

double SelectionLaw::gamma() const { return std::exp(ln_gamma_); }

double SelectionLaw::mean() const { return std::exp(ln_mean(selection_.eta, -ln_gamma_)); }

double SelectionLaw::probability(std::int64_t runs) const {
  if (runs < 1) return 0;
  if (ln_gamma_ == 0) return runs == 1 ? 1 : 0;
  const double eta = selection_.eta, k = static_cast<double>(runs);
  // P(K = 1) is what is left of mean = gamma^-(1 + eta) P(K = 1); then Gamma(k + eta) / k!.
  const double ln_first = ln_mean(eta, -ln_gamma_) + (1 + eta) * ln_gamma_;
  const double ln_ratio =
      ln_gamma_ratio(k, eta) - ln_gamma_ratio(1, eta) - std::log(k);  // of Gamma(k + eta) / k!
  return std::exp(ln_first + (k - 1) * ln_without(ln_gamma_) + ln_ratio);
}

double SelectionLaw::ln_at_least(std::int64_t runs) const {
  if (runs <= 1) return 0;
  if (ln_gamma_ == 0) return -std::numeric_limits<double>::infinity();
  const double eta = selection_.eta, k = static_cast<double>(runs);
  // P(K >= k) is an incomplete beta function: Gamma(k + eta) / (Gamma(k) Gamma(1 + eta)) times the
  // integral, over that of k = 1.
  return ln_gamma_ratio(k, eta) - ln_gamma_ratio(1, eta) + ln_tail_integral(eta, ln_gamma_, k) -
         ln_norm_;
}

std::int64_t SelectionLaw::runs_at(double ln_uniform) const {
  // The largest k with P(K >= k) at least the uniform number.
  std::int64_t low = 1, high = 2;
  while (high < kMostRuns && ln_at_least(high) >= ln_uniform) {
    low = high;
    high *= 2;
  }
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (ln_at_least(middle) >= ln_uniform ? low : high) = middle;
  }
  return low;
}

std::int64_t SelectionLaw::quantile(double share) const {
  // P(K > k) <= 1 - share first holds where P(K >= k) does not any more: the same search, but for
  // the rounding of a share that a k reaches exactly.
  return runs_at(std::log1p(-share) + 1e-12);
}

std::int64_t draw_runs(const SelectionLaw& law, ChaChaStream& random) {
  // u = (word + fraction) / 2^64, where the fraction follows from a further word and a word of 0 is
  // one of 64 more zeros: at least 64 bits count whatever u is.
  double ln_scale = 0;
  std::uint64_t word = random.next();
  for (; word == 0; word = random.next()) ln_scale -= 64 * std::log(2.0);
  const double fraction = std::ldexp(static_cast<double>(random.next()) + 0.5, -64);
  const double uniform = std::ldexp(static_cast<double>(word) + fraction, -64);
  return law.runs_at(std::min(0.0, ln_scale + std::log(uniform)));
}

std::string quantiles_text(const SelectionLaw& law) {
  return fmt::format("median {}, 90 % at most {}, 99 % at most {}", law.quantile(0.5),
                     law.quantile(0.9), law.quantile(0.99));
}

}  // namespace sfumato
