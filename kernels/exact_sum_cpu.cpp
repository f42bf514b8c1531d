#include "kernels/every_x86_64.h"
#include "kernels/exact_sum.h"

#include <cmath>

namespace sfumato {
namespace {

inline std::int64_t rounded(float value, const ExactGrid& grid) {
  double units = value * grid.units;
  units = units > grid.limit ? grid.limit : units < -grid.limit ? -grid.limit : units;
  return static_cast<std::int64_t>(std::rint(units == units ? units : 0));
}

SFUMATO_EVERY_X86_64 void store_rounded(const float* values, std::int64_t count, ExactGrid grid,
                                        std::int64_t* sum) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] = rounded(values[i], grid);
}
SFUMATO_EVERY_X86_64 void add_rounded(const float* values, std::int64_t count, ExactGrid grid,
                                      std::int64_t* sum) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] += rounded(values[i], grid);
}

}  // namespace

void exact_sum_add_cpu(const float* values, std::int64_t count, ExactGrid grid, bool store,
                       std::int64_t* sum) {
  (store ? store_rounded : add_rounded)(values, count, grid, sum);
}

void exact_sum_take_cpu(const std::int64_t* sum, std::int64_t count, double unit, float* out) {
  for (std::int64_t i = 0; i < count; ++i)
    out[i] = static_cast<float>(static_cast<double>(sum[i]) * unit);
}

}  // namespace sfumato
