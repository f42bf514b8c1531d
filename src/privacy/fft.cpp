#include "fft.h"

#include <algorithm>
#include <cmath>
#include <kissfft/kissfft.hh>
#include <memory>
#include <utility>

namespace sfumato {
namespace {

using Complex = std::complex<double>;
using Plan = kissfft<double>;

/// Twiddle factors cost as much as a transform, and a search asks for few lengths again and again:
/// the last ones of a thread are kept.
const Plan& plan(std::size_t length, bool inverse) {
  constexpr std::size_t kKept = 4;
  using Kept = std::pair<std::size_t, std::unique_ptr<Plan>>;
  thread_local std::vector<Kept> kept[2];
  std::vector<Kept>& plans = kept[inverse ? 1 : 0];
  const auto known = std::ranges::find(plans, length, &Kept::first);
  if (known != plans.end()) {
    std::rotate(plans.begin(), known, known + 1);
  } else {
    if (plans.size() == kKept) plans.pop_back();
    plans.emplace(plans.begin(), length, std::make_unique<Plan>(length, inverse));
  }
  return *plans.front().second;
}

/// e^(2 pi i k / n) for k = 0, 1, ..., by multiplication, set right every 64 steps.
class Turning {
 public:
  explicit Turning(std::size_t n) : angle_(2 * std::acos(-1.0) / static_cast<double>(n)) {}
  Complex next() {
    if (at_ % 64 == 0) {
      value_ = std::polar(1.0, angle_ * static_cast<double>(at_));
    } else {
      value_ *= step_;
    }
    ++at_;
    return value_;
  }

 private:
  double angle_;
  Complex step_ = std::polar(1.0, angle_), value_;
  std::size_t at_ = 0;
};

}  // namespace

std::int64_t fast_fft_length(std::int64_t n) {
  std::int64_t power = 16;
  while (power < n) power *= 2;
  for (const std::int64_t eighths : {5, 6})  // 5/8 and 3/4 of it
    if (power / 8 * eighths >= n) return power / 8 * eighths;
  return power;
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
  Turning turning(2 * half);
  for (std::size_t k = 0; k < half; ++k) {
    const Complex mirrored = std::conj(bins[half - k]);
    const Complex even = bins[k] + mirrored;
    const Complex odd = (bins[k] - mirrored) * turning.next();
    packed[k] = even + Complex(0, 1) * odd;
  }
  std::vector<double> values(2 * half);
  plan(half, true).transform(packed.data(), reinterpret_cast<Complex*>(values.data()));
  const double scale = 1.0 / static_cast<double>(2 * half);
  for (double& value : values) value *= scale;
  return values;
}

}  // namespace sfumato
