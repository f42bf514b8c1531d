#include "sfumato/privacy/gaussian_mechanism.h"

#include <cmath>

#include "sfumato/core/infinity.h"

namespace sfumato {
namespace {

double ln_gaussian_delta(double mu, double epsilon) {
  if (!(mu > 0)) return -kInfinity;
  if (std::isinf(mu)) return 0;
  const double x = ln_normal_cdf(mu / 2 - epsilon / mu);
  const double y = epsilon + ln_normal_cdf(-mu / 2 - epsilon / mu);
  return y < x ? x + std::log1p(-std::exp(y - x)) : -kInfinity;
}

/// The end of [low, high] that keeps a falling condition, after bisection to the last bit or so.
template <typename Keeps>
double bisect(double keeping, double breaking, const Keeps& keeps) {
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (keeping + breaking);
    if (middle == keeping || middle == breaking) break;
    (keeps(middle) ? keeping : breaking) = middle;
  }
  return keeping;
}

}  // namespace

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

double ln_normal_cdf(double x) {
  // Below -25 by the asymptotic series, where erfc would underflow.
  if (x > -25) return std::log(normal_cdf(x));
  const double y = 1 / (x * x);
  return -0.5 * x * x - 0.5 * std::log(2 * std::acos(-1.0)) - std::log(-x) +
         std::log1p(y * (-1 + y * (3 + y * (-15 + y * 105))));
}

double gaussian_delta(double mu, double epsilon) {
  return std::exp(ln_gaussian_delta(mu, epsilon));
}

double gaussian_epsilon(double mu, double delta) {
  const auto keeps = [&](double epsilon) {
    return ln_gaussian_delta(mu, epsilon) <= std::log(delta);
  };
  if (std::isinf(mu)) return kInfinity;
  if (keeps(0)) return 0;
  double high = 1;
  while (!keeps(high)) {
    high *= 2;
    if (std::isinf(high)) return kInfinity;
  }
  return bisect(high, 0.0, keeps);
}

double gaussian_mu(double epsilon, double delta) {
  const auto keeps = [&](double mu) { return ln_gaussian_delta(mu, epsilon) <= std::log(delta); };
  if (std::isinf(epsilon)) return kInfinity;
  double high = 1;
  while (keeps(high)) high *= 2;
  return bisect(0.0, high, keeps);
}

}  // namespace sfumato
