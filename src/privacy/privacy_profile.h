#pragma once
#include <functional>

namespace sfumato {

/// An epsilon > 0 with delta(epsilon) <= ceiling(epsilon), as computed and not only nearly, above
/// the smallest one by no more than a share of some `width`: delta falls in epsilon, the ceiling
/// rises from 0, and lies above delta at `certain`. `guess`: where to look first.
double crossing(const std::function<double(double)>& delta,
                const std::function<double(double)>& ceiling, double guess, double certain,
                double width = 1e-10);

}  // namespace sfumato
