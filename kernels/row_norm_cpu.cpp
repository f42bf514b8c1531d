#include "kernels/row_norm.h"

namespace sfumato {

__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
void row_squared_norms_cpu(const float* rows, int64_t begin, int64_t end, int64_t columns,
                           double* out) {
  // Fixed lanes instead of -ffast-math: the order of the sum is the same on every machine.
  constexpr int64_t kLanes = 32;
  for (int64_t r = begin; r < end; ++r) {
    const float* row = rows + r * columns;
    double lanes[kLanes] = {};
    const int64_t whole = columns / kLanes * kLanes;
    for (int64_t j = 0; j < whole; j += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) {
        const double v = row[j + l];
        lanes[l] += v * v;
      }
    double sum = 0;
    for (int64_t l = 0; l < kLanes; ++l) sum += lanes[l];
    for (int64_t j = whole; j < columns; ++j) sum += double{row[j]} * double{row[j]};
    out[r] = sum;
  }
}

}  // namespace sfumato
