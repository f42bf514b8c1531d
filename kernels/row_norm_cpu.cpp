#include "kernels/row_norm.h"

#include "kernels/element_access.h"
#include "kernels/every_x86_64.h"

namespace sfumato {

SFUMATO_EVERY_X86_64 void row_squared_norms_cpu(const float* rows, std::int64_t begin,
                                                std::int64_t end, std::int64_t columns,
                                                double* out) {
  // Fixed lanes instead of -ffast-math: the order of the sum is the same on every machine.
  constexpr std::int64_t kLanes = 32;
  for (std::int64_t r = begin; r < end; ++r) {
    const float* row = rows + r * columns;
    double lanes[kLanes] = {};
    const std::int64_t whole = columns / kLanes * kLanes;
    for (std::int64_t j = 0; j < whole; j += kLanes)
      for (std::int64_t l = 0; l < kLanes; ++l) {
        const double v = row[j + l];
        lanes[l] += v * v;
      }
    double sum = 0;
    for (std::int64_t l = 0; l < kLanes; ++l) sum += lanes[l];
    for (std::int64_t j = whole; j < columns; ++j) sum += double{row[j]} * double{row[j]};
    out[r] = sum;
  }
}

void row_squared_norms_cpu(const void* rows, Element element, std::int64_t count,
                           std::int64_t columns, double* out) {
  if (element == Element::kFloat32)
    return row_squared_norms_cpu(static_cast<const float*>(rows), 0, count, columns, out);
  for (std::int64_t r = 0; r < count; ++r) {
    double sum = 0;
    for (std::int64_t j = 0; j < columns; ++j) {
      const double v = element_at(rows, element, r * columns + j);
      sum += v * v;
    }
    out[r] = sum;
  }
}

}  // namespace sfumato
