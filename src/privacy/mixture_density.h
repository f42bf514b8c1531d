#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "sfumato/privacy/dominating_pair.h"

namespace sfumato {

/// Density of a mixture relative to N(0, sigma^2).
class MixtureDensity {
 public:
  MixtureDensity(const GaussianMixture& mixture, double sigma) {
    for (std::size_t j = 0; j < mixture.centres.size(); ++j) {
      const double centre = mixture.centres[j];
      if (centre == 0) {
        ln_weight_at_zero_ = mixture.ln_weights[j];
      } else {
        const double slope = centre / (sigma * sigma);
        terms_.push_back(
            {mixture.ln_weights[j], std::exp(mixture.ln_weights[j]), slope, slope * centre / 2});
      }
    }
  }
  bool trivial() const { return terms_.empty(); }
  /// The density minus 1, to full relative accuracy near 0; may overflow to infinity.
  double excess(double x) const {
    double sum = 0;
    for (const Term& term : terms_) {
      const double exponent = term.slope * x - term.offset;
      sum +=
          exponent < 30 ? term.weight * std::expm1(exponent) : std::exp(term.ln_weight + exponent);
    }
    return sum;
  }
  /// Its logarithm, given the excess; by log-sum-exp where 1 + excess would lose digits.
  double ln(double x, double excess) const {
    if (excess > -0.5 && excess < 1e300) return std::log1p(excess);
    double peak = ln_weight_at_zero_;
    for (const Term& term : terms_)
      peak = std::max(peak, term.ln_weight + term.slope * x - term.offset);
    double sum = std::exp(ln_weight_at_zero_ - peak);
    for (const Term& term : terms_)
      sum += std::exp(term.ln_weight + term.slope * x - term.offset - peak);
    return peak + std::log(sum);
  }
  /// d ln(density) / dx: the posterior mean of the centres over sigma^2.
  double slope(double x) const {
    double peak = ln_weight_at_zero_;
    for (const Term& term : terms_)
      peak = std::max(peak, term.ln_weight + term.slope * x - term.offset);
    double sum = std::exp(ln_weight_at_zero_ - peak), weighted = 0;
    for (const Term& term : terms_) {
      const double density = std::exp(term.ln_weight + term.slope * x - term.offset - peak);
      sum += density;
      weighted += density * term.slope;
    }
    return weighted / sum;
  }

 private:
  struct Term {
    double ln_weight, weight, slope, offset;
  };
  std::vector<Term> terms_;
  double ln_weight_at_zero_ = -std::numeric_limits<double>::infinity();
};

}  // namespace sfumato
