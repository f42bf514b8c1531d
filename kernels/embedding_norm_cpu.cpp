#include "kernels/embedding_norm.h"

#include <cmath>
#include <map>
#include <vector>

#include "kernels/device/rounding_floor.cuh"
#include "kernels/element_access.h"

namespace sfumato {

void embedding_norm_cpu(const std::int64_t* indices, const void* dy, Element element,
                        std::int64_t examples, std::int64_t tokens, std::int64_t width,
                        double* squared_norm) {
  for (std::int64_t i = 0; i < examples; ++i) {
    std::map<std::int64_t, std::vector<double>> gradient;  // the rows that are not zero
    double magnitude = 0;
    for (std::int64_t t = i * tokens; t < (i + 1) * tokens; ++t) {
      std::vector<double>& row = gradient[indices[t]];
      row.resize(static_cast<std::size_t>(width));
      double squares = 0;
      for (std::int64_t d = 0; d < width; ++d) {
        const double v = element_at(dy, element, t * width + d);
        row[static_cast<std::size_t>(d)] += v;
        squares += v * v;
      }
      magnitude += std::sqrt(squares);
    }
    double squared = 0;
    for (const auto& [index, row] : gradient)
      for (const double v : row) squared += v * v;
    squared_norm[i] = device::with_rounding_floor(squared, magnitude, tokens);
  }
}

void embedding_accumulate_cpu(const std::int64_t* indices, const void* dy, Element element,
                              std::int64_t examples, std::int64_t tokens, std::int64_t width,
                              std::int64_t rows, const float* factors, float* out) {
  std::map<std::int64_t, std::vector<double>> sums;
  for (std::int64_t i = 0; i < examples; ++i) {
    if (factors[i] == 0) continue;
    for (std::int64_t t = i * tokens; t < (i + 1) * tokens; ++t) {
      if (indices[t] < 0 || indices[t] >= rows) continue;
      std::vector<double>& row = sums[indices[t]];
      row.resize(static_cast<std::size_t>(width));
      for (std::int64_t d = 0; d < width; ++d)
        row[static_cast<std::size_t>(d)] +=
            double{factors[i]} * double{element_at(dy, element, t * width + d)};
    }
  }
  for (const auto& [index, row] : sums)
    for (std::int64_t d = 0; d < width; ++d) {
      float& place = out[index * width + d];
      place = static_cast<float>(double{place} + row[static_cast<std::size_t>(d)]);
    }
}

}  // namespace sfumato
