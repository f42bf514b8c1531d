#include "harmonics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "fft.h"

namespace sfumato {
namespace {

using Complex = std::complex<double>;

constexpr double kTwoPi = 6.283185307179586;
constexpr double kUnit = 0x1p-53;
// Samples of a release's transform for one standard deviation of its loss: they lie pi / 64 of the
// inverse of it apart, and differ by less than that.
constexpr double kSamples = 64;
// A kind released less often is not worth it: it counts as 1 in the bound.
constexpr double kFewReleases = 16;
// ln of how much less the last point of the ring must weigh than the first.
constexpr double kLeastFall = 8;
// Rotations by multiplication before an angle is computed anew, and outcomes added up at a time.
constexpr std::size_t kRotations = 32, kBlock = 64;

Complex turn(std::int64_t a, std::int64_t b, std::int64_t points) {
  const std::int64_t part = shifted(static_cast<double>(modulo(a, points)), b, points);
  return std::polar(1.0, kTwoPi * static_cast<double>(part) / static_cast<double>(points));
}

/// ln of a bound of the product's size between each two of `samples` / 2 + 1 frequencies.
std::vector<double> ln_bounds(std::span<const Repeated> releases, std::int64_t samples) {
  std::vector<double> bounds(static_cast<std::size_t>(samples / 2), 0.0);
  for (const Repeated& release : releases) {
    if (release.count < kFewReleases) continue;
    const double between =
        release.deviation * (1 + 1e-9) * kTwoPi / 2 / static_cast<double>(samples);
    const std::vector<Complex> bins = real_fft(release.change.ring(samples));
    for (std::size_t c = 0; c < bounds.size(); ++c) {
      const double size = std::max(std::abs(1.0 + bins[c]), std::abs(1.0 + bins[c + 1]));
      bounds[c] += release.count * std::log(std::min(1.0, size + between + 1e-12));
    }
  }
  return bounds;
}

/// Those that may matter, ascending; nullopt if they are more than `most`.
std::optional<std::vector<std::int64_t>> frequencies(std::span<const double> ln_bounds,
                                                     std::int64_t points, double most) {
  std::vector<std::int64_t> result;
  const auto samples = static_cast<std::int64_t>(2 * ln_bounds.size());
  std::int64_t next = 0;
  for (std::size_t c = 0; c < ln_bounds.size(); ++c) {
    if (ln_bounds[c] < kLnNegligible) continue;
    const auto cell = static_cast<std::int64_t>(c);
    // One more on each side, for the floor.
    next = std::max(next, cell * points / samples);
    for (; next <= std::min(points / 2, (cell + 1) * points / samples + 1); ++next)
      result.push_back(next);
    if (static_cast<double>(result.size()) > most) return {};
  }
  return result;
}

/// Bins of a change at some frequencies.
std::vector<Complex> bins_at(const Change& change, const std::vector<std::int64_t>& frequencies,
                             std::int64_t points) {
  const std::size_t n = frequencies.size();
  std::vector<Complex> bins(n, 0.0), block(n, 0.0);
  for (std::size_t i = 0; i < change.others.size(); ++i) {
    const auto [steps, p] = change.others[i];
    const Complex step = turn(-steps, 1, points);
    Complex here = 1;
    for (std::size_t k = 0; k < n; ++k) {
      if (k % kRotations != 0 && frequencies[k] == frequencies[k - 1] + 1) {
        here = {here.real() * step.real() - here.imag() * step.imag(),
                here.real() * step.imag() + here.imag() * step.real()};
      } else {
        here = turn(-steps, frequencies[k], points);
      }
      block[k] += Complex(p * (here.real() - 1), p * here.imag());
    }
    if ((i + 1) % kBlock != 0 && i + 1 != change.others.size()) continue;
    for (std::size_t k = 0; k < n; ++k) bins[k] += std::exchange(block[k], 0.0);
  }
  return bins;
}

}  // namespace

std::optional<Harmonics> Harmonics::of(std::span<const Repeated> releases, std::int64_t points,
                                       std::int64_t first, double tilt, double width) {
  double widest = 0, outcomes = 0;
  for (const Repeated& release : releases) {
    if (release.count >= kFewReleases) widest = std::max(widest, release.deviation);
    outcomes += static_cast<double>(release.change.others.size());
  }
  const double enough = kSamples * widest;
  if (!(widest > 0) || !(enough < static_cast<double>(points) / 4)) return {};
  // Where weights hardly fall, a geometric sum is the difference of what is much larger.
  if (!(tilt * width * static_cast<double>(points) > kLeastFall)) return {};
  const std::int64_t samples = fast_fft_length(static_cast<std::int64_t>(enough));
  // About what transforms of the whole ring would take.
  const double most = 8 * static_cast<double>(points) / (outcomes + 1);
  const auto which = frequencies(ln_bounds(releases, samples), points, most);
  if (!which) return {};

  std::vector<Complex> product(which->size(), 1.0);
  std::vector<double> smallest(which->size(), 1.0);  // factor of each bin
  Harmonics result;
  result.points_ = points;
  result.tilt_ = tilt;
  result.width_ = width;
  for (const Repeated& release : releases) {
    const std::vector<Complex> bins = bins_at(release.change, *which, points);
    multiply_power(product, bins, release.count);
    for (std::size_t k = 0; k < bins.size(); ++k)
      smallest[k] = std::min(smallest[k], std::abs(1.0 + bins[k]));
    const double blocks = static_cast<double>(release.change.others.size()) / kBlock;
    result.roundings_ = std::max(result.roundings_, 2 * (3.0 * kRotations + kBlock + blocks + 8));
  }
  const auto n = static_cast<double>(points);
  const double fall = std::exp(-tilt * width), less = -std::expm1(-width);
  for (std::size_t k = 0; k < which->size(); ++k) {
    const std::int64_t frequency = (*which)[k];
    if (product[k] == 0.0) continue;
    const bool alone = frequency == 0 || 2 * frequency == points;  // has no mirror image
    const Complex z = turn(frequency, 1, points);
    const double half = std::sin(kTwoPi * static_cast<double>(frequency) / n / 2);
    const Complex off(2 * half * half, -z.imag());  // 1 - z
    const double fall_near = fall * (1 - less);
    const Complex both = -std::expm1(-tilt * width) + fall * off;  // 1 - z fall
    const Complex near = -std::expm1(-(tilt + 1) * width) + fall_near * off;
    const Complex bin = product[k] * turn(frequency, first, points) * ((alone ? 1.0 : 2.0) / n);
    // 1 / both - 1 / near without cancellation.
    const Complex delta = z * fall * less / (both * near);
    result.harmonics_.push_back({frequency, bin, bin * delta, bin / near, bin / both});
    // What a factor errs is relative to 1.
    const double size = std::abs(bin) / smallest[k], size_near = size / std::abs(near);
    result.size_at_ += size * std::abs(delta) + less * size_near;
    result.size_end_ += size / std::abs(both) + size_near;
    result.size_near_ += size_near;
  }
  return result;
}

Harmonics::Sums Harmonics::from(std::int64_t i) const {
  // A geometric sum up to the top of the ring, where z^points = 1.
  const double left = static_cast<double>(points_ - i) * width_;
  const double end_both = std::exp(-tilt_ * left), end_near = std::exp(-(tilt_ + 1) * left);
  double delta = 0, near = 0;
  for (const Harmonic& h : harmonics_) {
    const Complex z = turn(h.frequency, i, points_);
    delta += h.delta.real() * z.real() - h.delta.imag() * z.imag() -
             (h.both.real() * end_both - h.near.real() * end_near);
    near += h.near.real() * z.real() - h.near.imag() * z.imag() - h.near.real() * end_near;
  }
  return {delta, std::max(0.0, near)};
}

/// Of the bins, and of the sums: of an angle and a term, and of adding them up.
Harmonics::Error Harmonics::error(double factors) const {
  const double sums = 32 + static_cast<double>(harmonics_.size());
  const double share = kUnit * (factors * roundings_ + sums);
  return {share * size_at_, share * size_end_, 2 * share * size_near_};
}

}  // namespace sfumato
