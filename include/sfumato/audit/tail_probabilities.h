#pragma once
#include <cstdint>
#include <span>

#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {

// Tails of the distributions that audits test against. All are accurate to about 1e-10 relative in
// the tail that is asked for, also far out, where 1 - (the other tail) would be rounding noise.
// UsageError for parameters outside their range.

/// The inverse of normal_cdf (privacy/gaussian_mechanism.h): -infinity at 0, infinity at 1.
double normal_quantile(double probability);

/// Regularised incomplete beta function I_x(a, b), a, b > 0: continued fraction (Lentz's method),
/// its factor by Loader's saddle point ("Fast and accurate computation of binomial probabilities",
/// 2000), so that nothing cancels for large a and b.
double incomplete_beta(double a, double b, double x);

/// Regularised upper incomplete gamma function Q(a, x), a > 0, and P = 1 - Q.
double incomplete_gamma_upper(double a, double x);
double incomplete_gamma_lower(double a, double x);

/// ln P[Bin(n, p) = k], by Loader's saddle point.
double binomial_log_pmf(std::int64_t n, double p, std::int64_t k);
/// P[Bin(n, p) >= k] and P[Bin(n, p) <= k].
double binomial_upper_tail(std::int64_t n, double p, std::int64_t k);
double binomial_lower_tail(std::int64_t n, double p, std::int64_t k);
/// Twice the smaller tail, at most 1: an exact test of a count.
double binomial_p_value(std::int64_t n, double p, std::int64_t k);

/// One-sided Clopper-Pearson bounds of a success probability after k successes in n trials: with
/// probability at least 1 - `alpha` the truth is not above (below) them.
double clopper_pearson_upper(std::int64_t k, std::int64_t n, double alpha);
double clopper_pearson_lower(std::int64_t k, std::int64_t n, double alpha);

/// P[X >= x] and P[X <= x] for X chi-square with `degrees` > 0 degrees of freedom.
double chi_square_upper_tail(double x, double degrees);
double chi_square_lower_tail(double x, double degrees);
/// Twice the smaller tail, at most 1.
double chi_square_p_value(double x, double degrees);

/// Bound on P[sup |F_n - F| >= distance] for n independent values: 2 exp(-2 n d^2), at most 1. The
/// constant is Massart's (1990); it holds for every n and F, conservatively for discrete ones.
double kolmogorov_p_value(double distance, std::int64_t n);
/// sup |F_n - Phi|; sorts `values`.
double kolmogorov_distance_to_normal(std::span<float> values);

/// Bound on P[|sum of n products of independent standard normals| >= |sum|], by Chernoff's method:
/// E exp(t XY) = (1 - t^2)^(-1/2). For tests that two noise vectors are independent.
double product_sum_p_value(double sum, std::int64_t n);

}  // namespace sfumato
