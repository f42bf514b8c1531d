#include "fft.h"

#include <kissfft/kissfft.hh>
#include <limits>
#include <memory>
#include <utility>

namespace sfumato {
namespace {

using Complex = std::complex<double>;
using Plan = kissfft<double>;

/// Twiddle factors cost as much as a transform, and calibration repeats one length. Two plans (one
/// a direction) a thread are kept, and only of lengths that are asked for again and again.
const Plan& plan(std::size_t length, bool inverse) {
  thread_local std::pair<std::size_t, std::unique_ptr<Plan>> kept[2];
  auto& [known, made] = kept[inverse ? 1 : 0];
  if (known != length) {
    made = std::make_unique<Plan>(length, inverse);
    known = length;
  }
  return *made;
}

Complex turn(double share) { return std::polar(1.0, 2 * std::acos(-1.0) * share); }

}  // namespace

std::int64_t fast_fft_length(std::int64_t n) {
  std::int64_t best = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t fives = 1; fives < 2 * n && fives <= 125; fives *= 5) {
    for (std::int64_t threes = fives; threes < 2 * n && threes <= 81 * fives; threes *= 3) {
      std::int64_t length = 2 * threes;
      while (length < n) length *= 2;
      best = std::min(best, length);
    }
  }
  return best;
}

std::vector<Complex> real_fft(std::span<const double> values) {
  const std::size_t half = values.size() / 2;
  std::vector<Complex> bins(half + 1);
  plan(half, false).transform_real(values.data(), bins.data());
  bins[half] = bins[0].imag();
  bins[0] = bins[0].real();
  return bins;
}

std::vector<double> inverse_real_fft(std::vector<Complex> bins) {
  const std::size_t half = bins.size() - 1;
  // Even and odd samples as real and imaginary parts of one transform of half the length.
  std::vector<Complex> packed(half);
  for (std::size_t k = 0; k < half; ++k) {
    const Complex mirrored = std::conj(bins[half - k]);
    const Complex even = bins[k] + mirrored;
    const Complex odd =
        (bins[k] - mirrored) * turn(static_cast<double>(k) / static_cast<double>(2 * half));
    packed[k] = even + Complex(0, 1) * odd;
  }
  std::vector<double> values(2 * half);
  plan(half, true).transform(packed.data(), reinterpret_cast<Complex*>(values.data()));
  const double scale = 1.0 / static_cast<double>(2 * half);
  for (double& value : values) value *= scale;
  return values;
}

}  // namespace sfumato
