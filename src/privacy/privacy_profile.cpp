#include "privacy_profile.h"

#include <algorithm>
#include <cmath>

namespace sfumato {

double crossing(const std::function<double(double)>& delta,
                const std::function<double(double)>& ceiling, double guess, double certain,
                double width) {
  // Above 0 where delta is still too large; no more than 700 either way.
  const auto excess = [&](double epsilon) {
    const double d = delta(epsilon), c = ceiling(epsilon);
    if (d <= c) return d > 0 ? std::max(-700.0, std::log(d / c)) : -700.0;
    return c > 0 ? std::min(700.0, std::log(d / c)) : 700.0;
  };
  double high = certain, low = 0, f_high = -700, f_low = 700;
  const auto look = [&](double at) {
    const double f = excess(at);
    if (f <= 0) {
      high = at;
      f_high = f;
    } else {
      low = at;
      f_low = f;
    }
    return f <= 0;
  };
  // First an interval around the guess.
  double factor = 1.01;
  if (guess > 0 && guess < certain) {
    if (look(guess)) {
      while (look(high / factor) && high > 1e-12) factor *= factor;
    } else {
      while (low * factor < certain && !look(low * factor)) factor *= factor;
    }
  }
  int last = 0;
  for (int i = 0; i < 100 && high - low > width * high && f_high < -width; ++i) {
    const double span = high - low;
    double at = high - span * f_high / (f_high - f_low);
    at = std::clamp(at, low + 1e-3 * span, high - 1e-3 * span);
    const bool keeps = look(at);
    // Illinois: the end that stays counts half.
    if (keeps && last == 1) f_low /= 2;
    if (!keeps && last == -1) f_high /= 2;
    last = keeps ? 1 : -1;
  }
  return high;
}

}  // namespace sfumato
