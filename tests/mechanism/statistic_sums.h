#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "sfumato/mechanism/private_statistics.h"

namespace sfumato {

/// Looks at a sum that is not released.
class StatisticSumInspector {
 public:
  static std::vector<double> sums(const StatisticSum& sum) {
    std::vector<double> values;
    for (const int64_t value : sum.sums_) values.push_back(static_cast<double>(value) * sum.unit_);
    return values;
  }
};

namespace test {

/// By how much two sums differ, in L2.
inline long double distance(const StatisticSum& a, const StatisticSum& b) {
  const auto x = StatisticSumInspector::sums(a), y = StatisticSumInspector::sums(b);
  long double squares = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double d = static_cast<long double>(x[i]) - y[i];
    squares += d * d;
  }
  return std::sqrt(squares);
}

}  // namespace test
}  // namespace sfumato
