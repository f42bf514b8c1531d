#include "tilted_masses.h"

#include <algorithm>
#include <cmath>

#include "sfumato/core/infinity.h"

namespace sfumato {
namespace {

using Complex = std::complex<double>;

Tilted tilt_masses(const LossMasses& release, double tilt) {
  Tilted result;
  result.p.resize(release.mass.size());
  double peak = -kInfinity;
  for (std::size_t i = 0; i < release.mass.size(); ++i) {
    result.p[i] =
        release.mass[i] > 0 ? std::log(release.mass[i]) + tilt * release.loss[i] : -kInfinity;
    peak = std::max(peak, result.p[i]);
  }
  double sum = 0;
  for (double& p : result.p) sum += p = std::exp(p - peak);
  result.ln_norm = peak + std::log(sum);
  for (std::size_t i = 0; i < result.p.size(); ++i) {
    result.p[i] /= sum;
    result.mean += result.p[i] * release.loss[i];
  }
  for (std::size_t i = 0; i < result.p.size(); ++i) {
    const double off = release.loss[i] - result.mean;
    result.variance += result.p[i] * off * off;
  }
  return result;
}

/// ln E[e^(t (loss - mean))] of one tilted release.
double ln_moment(const Tilted& tilted, const LossMasses& release, double t) {
  double sum = 0;
  for (std::size_t i = 0; i < tilted.p.size(); ++i)
    if (tilted.p[i] > 0) sum += tilted.p[i] * std::expm1(t * (release.loss[i] - tilted.mean));
  return std::log1p(sum);
}

/// Chernoff: how far from its mean the total can be on one side, up to a probability of kBeyond.
double reach(std::span<const Tilted> tilted, std::span<const LossMasses> releases, double deviation,
             int side) {
  double best = kInfinity;
  const double start = std::sqrt(-2 * std::log(kBeyond)) / deviation;
  for (double t = 2 * start; t > start / 100; t /= 2) {
    double bound = -std::log(kBeyond);
    for (std::size_t i = 0; i < tilted.size(); ++i)
      bound += releases[i].count * ln_moment(tilted[i], releases[i], side * t);
    bound /= t;
    if (bound < best) {
      best = bound;
    } else if (std::isfinite(best)) {
      break;
    }
  }
  return best;
}

}  // namespace

Window window_of(std::span<const LossMasses> releases, double tilt, double width) {
  Window window;
  double mean = 0, variance = 0;
  for (const LossMasses& release : releases) {
    const Tilted& one = window.tilted.emplace_back(tilt_masses(release, tilt));
    window.ln_scale += release.count * one.ln_norm;
    mean += release.count * one.mean;
    variance += release.count * one.variance;
    window.low += release.count * release.loss.front();
    window.high += release.count * release.loss.back();
  }
  const double deviation = std::max({std::sqrt(variance), width, 1e-12});
  window.low = std::max(window.low, mean - reach(window.tilted, releases, deviation, -1));
  window.high = std::min(window.high, mean + reach(window.tilted, releases, deviation, +1));
  return window;
}

double window_length(std::span<const LossMasses> releases, double tilt) {
  const Window window = window_of(releases, tilt, 0);
  return window.high - window.low;
}

void multiply_power(std::vector<Complex>& product, const std::vector<Complex>& bins, double count) {
  // Of |1 + bin|^2 - 1, which near -1 has no digits left to tell.
  const double negligible = std::expm1(2 * kLnNegligible / count);
  for (std::size_t k = 0; k < bins.size(); ++k) {
    if (product[k] == 0.0) continue;
    const double real = bins[k].real(), imaginary = bins[k].imag();
    const double beyond_one = 2 * real + std::norm(bins[k]);
    double ln_size = -kInfinity;
    if (beyond_one < -0.5) {
      ln_size = 0.5 * count * std::log(std::norm(1.0 + bins[k]));
    } else if (beyond_one >= negligible) {
      ln_size = 0.5 * count * std::log1p(beyond_one);
    }
    if (ln_size < kLnNegligible) {
      product[k] = 0;
    } else if (count == 1) {
      product[k] *= 1.0 + bins[k];
    } else {
      const double angle = count * std::atan2(imaginary, 1 + real);
      product[k] *= std::polar(std::exp(ln_size), std::remainder(angle, 2 * std::acos(-1.0)));
    }
  }
}

std::int64_t modulo(std::int64_t value, std::int64_t points) {
  const std::int64_t rest = value % points;
  return rest < 0 ? rest + points : rest;
}

std::int64_t shifted(double count, std::int64_t at, std::int64_t points) {
  const auto whole = static_cast<unsigned __int128>(static_cast<std::uint64_t>(count));
  return static_cast<std::int64_t>(whole * static_cast<unsigned __int128>(modulo(at, points)) %
                                   static_cast<unsigned __int128>(points));
}

std::vector<double> Change::ring(std::int64_t points) const {
  std::vector<double> ring(static_cast<std::size_t>(points), 0.0);
  for (const Other& other : others)
    ring[static_cast<std::size_t>(modulo(other.steps, points))] += other.p;
  ring[0] -= changed;
  return ring;
}

Change change_of(const Tilted& tilted, const LossMasses& release, double width) {
  Change result;
  const auto most = static_cast<std::size_t>(std::ranges::max_element(tilted.p) - tilted.p.begin());
  result.at = std::llround(release.loss[most] / width);
  for (std::size_t i = 0; i < tilted.p.size(); ++i) {
    if (i == most || !(tilted.p[i] > 0)) continue;
    result.others.push_back({std::llround(release.loss[i] / width) - result.at, tilted.p[i]});
    result.changed += tilted.p[i];
  }
  return result;
}

}  // namespace sfumato
