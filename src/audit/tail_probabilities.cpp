#include "sfumato/audit/tail_probabilities.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "sfumato/core/error.h"
#include "sfumato/core/infinity.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

constexpr double kTiny = 1e-300;
constexpr double kPrecision = 1e-15;
constexpr int kMostTerms = 10'000'000;

void require(bool holds, const char* what) {
  if (!holds) throw UsageError(fmt::format("statistics: {}", what));
}

/// ln z! minus Stirling's formula.
double stirling_error(double z) {
  if (z < 16)
    return std::lgamma(z + 1) - (z + 0.5) * std::log(z) + z - 0.5 * std::log(2 * std::numbers::pi);
  const double s = 1 / (z * z);
  return (1.0 / 12 - s * (1.0 / 360 - s * (1.0 / 1260 - s * (1.0 / 1680 - s / 1188)))) / z;
}

/// x ln(x / m) + m - x without cancellation where x is near m.
double deviance(double x, double m) {
  if (std::abs(x - m) > 0.1 * (x + m)) return x * std::log(x / m) + m - x;
  const double v = (x - m) / (x + m);
  double sum = (x - m) * v, term = 2 * x * v;
  for (int j = 1; j < 1000; ++j) {
    term *= v * v;
    const double next = sum + term / (2 * j + 1);
    if (next == sum) break;
    sum = next;
  }
  return sum;
}

/// ln [Gamma(n+1) / (Gamma(k+1) Gamma(n-k+1)) p^k (1-p)^(n-k)] for real 0 < k < n.
double log_binomial_density(double n, double p, double k) {
  return stirling_error(n) - stirling_error(k) - stirling_error(n - k) - deviance(k, n * p) -
         deviance(n - k, n * (1 - p)) + 0.5 * std::log(n / (2 * std::numbers::pi * k * (n - k)));
}

double keep_from_zero(double value) { return std::abs(value) < kTiny ? kTiny : value; }

/// The continued fraction of I_x(a, b), for x below (a+1)/(a+b+2).
double beta_fraction(double a, double b, double x) {
  double c = 1, d = 1 / keep_from_zero(1 - (a + b) * x / (a + 1)), h = d;
  for (int m = 1; m < kMostTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / keep_from_zero(1 + even * d);
    c = keep_from_zero(1 + even / c);
    h *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / keep_from_zero(1 + odd * d);
    c = keep_from_zero(1 + odd / c);
    h *= d * c;
    if (std::abs(d * c - 1) < kPrecision) break;
  }
  return h;
}

/// x^a e^-x / Gamma(a + 1), a > 0, x > 0.
double poisson_density(double a, double x) {
  return std::exp(-stirling_error(a) - deviance(a, x)) / std::sqrt(2 * std::numbers::pi * a);
}

/// P(a, x) by its series, for x < a + 1.
double gamma_series(double a, double x) {
  double sum = 1, term = 1;
  for (int n = 1; n < kMostTerms && term > sum * kPrecision; ++n) sum += term *= x / (a + n);
  return sum * poisson_density(a, x);
}

/// Q(a, x) by its continued fraction, for x >= a + 1.
double gamma_fraction(double a, double x) {
  double b = x + 1 - a, c = 1 / kTiny, d = 1 / b, h = d;
  for (int i = 1; i < kMostTerms; ++i) {
    const double an = -i * (i - a);
    b += 2;
    d = 1 / keep_from_zero(an * d + b);
    c = keep_from_zero(b + an / c);
    h *= d * c;
    if (std::abs(d * c - 1) < kPrecision) break;
  }
  return h * poisson_density(a, x) * a;
}

/// The root of a function that falls (or rises) through zero in (0, 1), to the last bits.
template <typename F>
double bisect_probability(const F& is_below) {
  double low = 0, high = 1;
  for (int i = 0; i < 200 && high - low > 1e-15 * high; ++i) {
    // Geometric steps while the ends differ in magnitude: bounds may be tiny.
    const double middle = low > 0 && high / low > 2 ? std::sqrt(low * high)
                          : low == 0 && i < 60      ? high / 16
                                                    : (low + high) / 2;
    (is_below(middle) ? low : high) = middle;
  }
  return (low + high) / 2;
}

}  // namespace

double normal_quantile(double probability) {
  require(probability >= 0 && probability <= 1, "a probability lies in [0, 1]");
  if (probability == 0) return -kInfinity;
  if (probability == 1) return kInfinity;
  if (probability > 0.5) {
    // 1 - p is exact for p in [0.5, 1].
    return -normal_quantile(1 - probability);
  }
  // Newton's method on ln Phi, which is concave: from the left of the root it never overshoots.
  const double target = std::log(probability);
  double x = -std::sqrt(-2 * target);
  for (int i = 0; i < 100; ++i) {
    const double value = ln_normal_cdf(x);
    const double slope = std::exp(-x * x / 2 - 0.5 * std::log(2 * std::numbers::pi) - value);
    const double step = (target - value) / slope;
    x += step;
    if (std::abs(step) <= 1e-15 * std::abs(x) + 1e-300) break;
  }
  return x;
}

double incomplete_beta(double a, double b, double x) {
  require(a > 0 && b > 0, "the incomplete beta function needs a, b > 0");
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incomplete_beta(b, a, 1 - x);
  const double log_factor = log_binomial_density(a + b, x, a) + std::log(b / (a + b));
  return std::exp(log_factor) * beta_fraction(a, b, x);
}

double incomplete_gamma_upper(double a, double x) {
  require(a > 0 && !std::isnan(x), "the incomplete gamma function needs a > 0");
  if (x <= 0) return 1;
  if (std::isinf(x)) return 0;
  return x < a + 1 ? 1 - gamma_series(a, x) : gamma_fraction(a, x);
}

double incomplete_gamma_lower(double a, double x) {
  require(a > 0 && !std::isnan(x), "the incomplete gamma function needs a > 0");
  if (x <= 0) return 0;
  if (std::isinf(x)) return 1;
  return x < a + 1 ? gamma_series(a, x) : 1 - gamma_fraction(a, x);
}

double binomial_log_pmf(std::int64_t n, double p, std::int64_t k) {
  require(n >= 0 && p >= 0 && p <= 1, "a binomial needs n >= 0 and p in [0, 1]");
  if (k < 0 || k > n) return -kInfinity;
  if (p == 0 || p == 1) return (p == 0 ? k == 0 : k == n) ? 0.0 : -kInfinity;
  const double trials = static_cast<double>(n);
  if (k == 0) return trials * std::log1p(-p);
  if (k == n) return trials * std::log(p);
  return log_binomial_density(trials, p, static_cast<double>(k));
}

double binomial_upper_tail(std::int64_t n, double p, std::int64_t k) {
  require(n >= 0 && p >= 0 && p <= 1, "a binomial needs n >= 0 and p in [0, 1]");
  if (k <= 0) return 1;
  if (k > n) return 0;
  return incomplete_beta(static_cast<double>(k), static_cast<double>(n - k + 1), p);
}

double binomial_lower_tail(std::int64_t n, double p, std::int64_t k) {
  require(n >= 0 && p >= 0 && p <= 1, "a binomial needs n >= 0 and p in [0, 1]");
  if (k < 0) return 0;
  if (k >= n) return 1;
  return incomplete_beta(static_cast<double>(n - k), static_cast<double>(k + 1), 1 - p);
}

double binomial_p_value(std::int64_t n, double p, std::int64_t k) {
  return std::min(1.0, 2 * std::min(binomial_lower_tail(n, p, k), binomial_upper_tail(n, p, k)));
}

double clopper_pearson_upper(std::int64_t k, std::int64_t n, double alpha) {
  require(k >= 0 && k <= n && alpha > 0 && alpha < 1, "Clopper-Pearson needs 0 <= k <= n");
  if (k == n) return 1;
  // The smallest p that makes k or fewer successes rarer than alpha.
  return bisect_probability([&](double p) { return binomial_lower_tail(n, p, k) > alpha; });
}

double clopper_pearson_lower(std::int64_t k, std::int64_t n, double alpha) {
  require(k >= 0 && k <= n && alpha > 0 && alpha < 1, "Clopper-Pearson needs 0 <= k <= n");
  if (k == 0) return 0;
  return bisect_probability([&](double p) { return binomial_upper_tail(n, p, k) < alpha; });
}

double chi_square_upper_tail(double x, double degrees) {
  return incomplete_gamma_upper(degrees / 2, x / 2);
}

double chi_square_lower_tail(double x, double degrees) {
  return incomplete_gamma_lower(degrees / 2, x / 2);
}

double chi_square_p_value(double x, double degrees) {
  if (!std::isfinite(x)) return 0;
  return std::min(
      1.0, 2 * std::min(chi_square_lower_tail(x, degrees), chi_square_upper_tail(x, degrees)));
}

double kolmogorov_p_value(double distance, std::int64_t n) {
  if (std::isnan(distance)) return 0;
  return std::min(1.0, 2 * std::exp(-2 * static_cast<double>(n) * distance * distance));
}

double kolmogorov_distance_to_normal(std::span<float> values) {
  std::sort(values.begin(), values.end());
  const double n = static_cast<double>(values.size());
  double distance = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double cdf = normal_cdf(static_cast<double>(values[i]));
    const double rank = static_cast<double>(i);
    distance = std::max({distance, cdf - rank / n, (rank + 1) / n - cdf});
  }
  return distance;
}

double product_sum_p_value(double sum, std::int64_t n) {
  if (!std::isfinite(sum)) return 0;
  const double s = std::abs(sum), count = static_cast<double>(n);
  if (s == 0) return 1;
  // The best exponent t solves s = n t / (1 - t^2).
  const double t = 2 * s / (count + std::sqrt(count * count + 4 * s * s));
  return std::min(1.0, 2 * std::exp(-t * s - count / 2 * std::log1p(-t * t)));
}

}  // namespace sfumato
