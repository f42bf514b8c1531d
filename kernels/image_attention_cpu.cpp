#include "kernels/image_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/lane_math.h"

namespace sfumato {
namespace {

constexpr std::int64_t kStep = ImageAttention::head_dim_step;

/// kLanes queries of one head: `queries` [D] lanes, keys and values `stride` apart.
struct QueryLanes {
  const Lanes* queries;
  const float *keys, *values;
  std::int64_t stride, tokens, head_dim;
  Lanes *scores, *out;  ///< [T], [D]
};

__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) void attend(
    const QueryLanes& a) {
  Lanes most = {};
  most -= 3.0e38f;
  for (std::int64_t first = 0; first < a.head_dim; first += kStep) {
    const Lanes* q = a.queries + first;
    for (std::int64_t j = 0; j < a.tokens; ++j) {
      const float* key = a.keys + j * a.stride + first;
      Lanes even = q[0] * key[0], odd = q[1] * key[1];
      for (std::int64_t d = 2; d < kStep; d += 2) {
        even += q[d] * key[d];
        odd += q[d + 1] * key[d + 1];
      }
      a.scores[j] = first == 0 ? even + odd : a.scores[j] + (even + odd);
    }
  }
  for (std::int64_t j = 0; j < a.tokens; ++j) most = a.scores[j] > most ? a.scores[j] : most;
  Lanes sum = {};
  for (std::int64_t j = 0; j < a.tokens; ++j) {
    float p[kLanes];
    const Lanes score = a.scores[j] - most;
    std::memcpy(p, &score, sizeof p);
    for (std::int64_t i = 0; i < kLanes; ++i) p[i] = lane_exp(p[i]);
    load_lanes(p, a.scores[j]);
    sum += a.scores[j];
  }
  for (std::int64_t first = 0; first < a.head_dim; first += kStep) {
    Lanes out[kStep] = {};
    for (std::int64_t j = 0; j < a.tokens; ++j) {
      const float* value = a.values + j * a.stride + first;
      const Lanes p = a.scores[j];
      for (std::int64_t d = 0; d < kStep; ++d) out[d] += p * value[d];
    }
    for (std::int64_t d = 0; d < kStep; ++d) a.out[first + d] = out[d] / sum;
  }
}

}  // namespace

void image_attention_cpu(const ImageAttention& a, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = a.heads * a.head_dim, stride = 3 * width;
  const float scale = 1 / std::sqrt(static_cast<float>(a.head_dim));
  std::vector<Lanes> queries(static_cast<std::size_t>(a.head_dim)), out(queries.size());
  std::vector<Lanes> scores(static_cast<std::size_t>(a.tokens));
  for (std::int64_t n = begin; n < end; ++n)
    for (std::int64_t h = 0; h < a.heads; ++h) {
      const float* head = a.qkv + n * a.tokens * stride + h * a.head_dim;
      for (std::int64_t first = 0; first < a.tokens; first += kLanes) {
        const std::int64_t count = std::min(kLanes, a.tokens - first);
        for (std::int64_t i = 0; i < kLanes; ++i) {
          // Lanes past the end repeat the last query.
          const float* query = head + (first + std::min(i, count - 1)) * stride;
          for (std::int64_t d = 0; d < a.head_dim; ++d)
            queries[static_cast<std::size_t>(d)][i] = query[d] * scale;
        }
        attend({queries.data(), head + width, head + 2 * width, stride, a.tokens, a.head_dim,
                scores.data(), out.data()});
        for (std::int64_t i = 0; i < count; ++i) {
          float* row = a.out + (n * a.tokens + first + i) * width + h * a.head_dim;
          for (std::int64_t d = 0; d < a.head_dim; ++d)
            row[d] = out[static_cast<std::size_t>(d)][i];
        }
      }
    }
}

}  // namespace sfumato
