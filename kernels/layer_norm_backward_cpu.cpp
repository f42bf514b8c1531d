#include "kernels/layer_norm_backward.h"

#include <algorithm>
#include <vector>

#include "kernels/element_access.h"

namespace sfumato {

std::int64_t layer_norm_backward_workspace_bytes(Element element, std::int64_t examples,
                                                 std::int64_t tokens, std::int64_t channels) {
  const std::int64_t tile_rows = layer_norm_tile_rows(element, channels);
  const std::int64_t tiles = (tokens + tile_rows - 1) / tile_rows;
  return tiles == 1 ? 0 : 8 * examples * tiles * channels;
}

void layer_norm_backward_cpu(const void* x, const void* dy, const float* mean, const float* rstd,
                             const float* gamma, Element element, std::int64_t examples,
                             std::int64_t tokens, std::int64_t channels, void* dx, float* dgamma,
                             float* dbeta) {
  const auto size = static_cast<std::size_t>(channels);
  std::vector<double> d(size), xhat(size), gamma_sum(size), beta_sum(size);
  for (std::int64_t i = 0; i < examples; ++i) {
    std::fill(gamma_sum.begin(), gamma_sum.end(), 0.0);
    std::fill(beta_sum.begin(), beta_sum.end(), 0.0);
    for (std::int64_t row = i * tokens; row < (i + 1) * tokens; ++row) {
      const double m = mean[row], r = rstd[row];
      double sum = 0, sum_xhat = 0;
      for (std::size_t c = 0; c < size; ++c) {
        const std::int64_t place = row * channels + static_cast<std::int64_t>(c);
        d[c] = double{element_at(dy, element, place)};
        xhat[c] = (double{element_at(x, element, place)} - m) * r;
        beta_sum[c] += d[c];
        gamma_sum[c] += d[c] * xhat[c];
        sum += d[c] * double{gamma[c]};
        sum_xhat += d[c] * double{gamma[c]} * xhat[c];
      }
      if (dx == nullptr) continue;
      const double count = static_cast<double>(channels);
      for (std::size_t c = 0; c < size; ++c)
        set_element(
            dx, element, row * channels + static_cast<std::int64_t>(c),
            static_cast<float>(r * (d[c] * double{gamma[c]} - (sum + xhat[c] * sum_xhat) / count)));
    }
    for (std::size_t c = 0; dgamma != nullptr && c < size; ++c) {
      dgamma[i * channels + static_cast<std::int64_t>(c)] = static_cast<float>(gamma_sum[c]);
      dbeta[i * channels + static_cast<std::int64_t>(c)] = static_cast<float>(beta_sum[c]);
    }
  }
}

}  // namespace sfumato
