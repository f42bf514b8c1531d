#pragma once
#include <cmath>
#include <complex>
#include <vector>

#include "privacy/fft.h"
#include "sfumato/privacy/phase.h"

namespace sfumato {

/// The PRV accountant (Gopi, Lee, Wutschitz 2021) for one phase of add-remove, as a second opinion:
/// cells around the grid points, the mean matched by a shift, a plain Fourier transform. An
/// estimate of the exact epsilon, good to about 1e-5 where delta is far above 1e-14.
inline double prv_epsilon(const Phase& phase, double delta) {
  const double q = phase.sample_rate, s = phase.noise_multiplier;
  const auto steps = static_cast<double>(phase.steps);
  const auto cdf = [&](double t) {
    if (t <= std::log1p(-q)) return 0.0;
    const double w = std::log((std::exp(t) + q - 1) / q);
    const double r = 2 * std::sqrt(2.0) * s;
    return 1 - q / 2 * std::erfc((2 * w * s * s - 1) / r) -
           (1 - q) / 2 * std::erfc((2 * w * s * s + 1) / r);
  };
  const double h = std::min(2e-4, 1e-2 / std::sqrt(steps)), reach = 40;
  const auto half = static_cast<std::int64_t>(std::ceil(reach / h));
  const std::int64_t n = fast_fft_length(2 * half);
  std::vector<double> p(static_cast<std::size_t>(n));
  double mean_cells = 0, mean = 0, total = 0;
  for (std::int64_t k = -half; k < half; ++k) {
    const double t = static_cast<double>(k) * h;
    const double below = cdf(t - h / 2), above = cdf(t + h / 2);
    p[static_cast<std::size_t>((k + n) % n)] = above - below;
    total += above - below;
    mean_cells += t * (above - below);
    // int t dF over the cell, by parts and the midpoint rule; the steep part near ln(1-q) in
    // detail.
    const int parts = std::fabs(t) < 3 * q ? 64 : 4;
    double area = 0;
    for (int i = 0; i < parts; ++i) area += cdf(t - h / 2 + (i + 0.5) * h / parts) * h / parts;
    mean += (t + h / 2) * above - (t - h / 2) * below - area;
  }
  const double shift = (mean - mean_cells) / total;
  std::vector<std::complex<double>> bins = real_fft(p);
  for (auto& bin : bins) bin = std::pow(bin, steps);
  const std::vector<double> sum = inverse_real_fft(std::move(bins));
  double above = 0, weighted = 0;
  for (std::int64_t k = n / 2 - 1; k >= -n / 2; --k) {
    const double loss = static_cast<double>(k) * h + steps * shift;
    const double mass = std::max(0.0, sum[static_cast<std::size_t>((k + n) % n)]);
    above += mass;
    weighted += mass * std::exp(-loss);
    if (above > delta && above - std::exp(loss - h) * weighted >= delta)
      return std::max(0.0, std::log((above - delta) / weighted));
  }
  return 0;
}

}  // namespace sfumato
