#include "kernels/image_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/every_x86_64.h"
#include "kernels/lane_math.h"

namespace sfumato {
namespace {

constexpr std::int64_t kStep = ImageAttention::head_dim_step;

/// kLanes queries of one head: `queries` [D, kLanes], keys and values `stride` apart.
struct QueryLanes {
  const float *queries, *keys, *values;
  std::int64_t stride, tokens, head_dim;
  float *scores, *out;  ///< [T, kLanes], [D, kLanes]
};

/// The queries whose vector begins `lane` further.
template <typename Vector>
inline __attribute__((always_inline)) void attend_lanes(const QueryLanes& a, std::int64_t lane) {
  constexpr std::int64_t kWidth = sizeof(Vector) / sizeof(float);
  float *scores = a.scores + lane, *out_lanes = a.out + lane;
  Vector most = {}, score;
  most -= 3.0e38f;
  for (std::int64_t first = 0; first < a.head_dim; first += kStep) {
    Vector q[kStep];
    for (std::int64_t d = 0; d < kStep; ++d)
      load_lanes(a.queries + (first + d) * kLanes + lane, q[d]);
    for (std::int64_t j = 0; j < a.tokens; ++j) {
      const float* key = a.keys + j * a.stride + first;
      Vector even = q[0] * key[0], odd = q[1] * key[1];
      for (std::int64_t d = 2; d < kStep; d += 2) {
        even += q[d] * key[d];
        odd += q[d + 1] * key[d + 1];
      }
      even += odd;
      if (first > 0) {
        load_lanes(scores + j * kLanes, score);
        even += score;
      }
      store_lanes(even, scores + j * kLanes);
    }
  }
  for (std::int64_t j = 0; j < a.tokens; ++j) {
    load_lanes(scores + j * kLanes, score);
    most = score > most ? score : most;
  }
  Vector sum = {};
  for (std::int64_t j = 0; j < a.tokens; ++j) {
    float p[kWidth];
    load_lanes(scores + j * kLanes, score);
    store_lanes(score - most, p);
    for (std::int64_t i = 0; i < kWidth; ++i) p[i] = lane_exp(p[i]);
    load_lanes(p, score);
    store_lanes(score, scores + j * kLanes);
    sum += score;
  }
  for (std::int64_t first = 0; first < a.head_dim; first += kStep) {
    Vector out[kStep] = {};
    for (std::int64_t j = 0; j < a.tokens; ++j) {
      const float* value = a.values + j * a.stride + first;
      load_lanes(scores + j * kLanes, score);
      for (std::int64_t d = 0; d < kStep; ++d) out[d] += score * value[d];
    }
    for (std::int64_t d = 0; d < kStep; ++d)
      store_lanes(out[d] / sum, out_lanes + (first + d) * kLanes);
  }
}

template <typename Vector>
inline __attribute__((always_inline)) void attend_all(const QueryLanes& a) {
  for (std::int64_t lane = 0; lane < kLanes; lane += sizeof(Vector) / sizeof(float))
    attend_lanes<Vector>(a, lane);
}

SFUMATO_X86_64_V4 void attend_v4(const QueryLanes& a) { attend_all<Lanes>(a); }
SFUMATO_X86_64_V3 void attend_v3(const QueryLanes& a) { attend_all<HalfLanes>(a); }
void attend_everywhere(const QueryLanes& a) { attend_all<QuarterLanes>(a); }

}  // namespace

void image_attention_cpu(const ImageAttention& a, std::int64_t begin, std::int64_t end,
                         X86Level level) {
  const auto attend = for_level(level, attend_v4, attend_v3, attend_everywhere);
  const std::int64_t width = a.heads * a.head_dim, stride = 3 * width;
  const float scale = 1 / std::sqrt(static_cast<float>(a.head_dim));
  std::vector<float> queries(static_cast<std::size_t>(a.head_dim * kLanes)), out(queries.size());
  std::vector<float> scores(static_cast<std::size_t>(a.tokens * kLanes));
  for (std::int64_t n = begin; n < end; ++n)
    for (std::int64_t h = 0; h < a.heads; ++h) {
      const float* head = a.qkv + n * a.tokens * stride + h * a.head_dim;
      for (std::int64_t first = 0; first < a.tokens; first += kLanes) {
        const std::int64_t count = std::min(kLanes, a.tokens - first);
        for (std::int64_t i = 0; i < kLanes; ++i) {
          // Lanes past the end repeat the last query.
          const float* query = head + (first + std::min(i, count - 1)) * stride;
          for (std::int64_t d = 0; d < a.head_dim; ++d)
            queries[static_cast<std::size_t>(d * kLanes + i)] = query[d] * scale;
        }
        attend({queries.data(), head + width, head + 2 * width, stride, a.tokens, a.head_dim,
                scores.data(), out.data()});
        for (std::int64_t i = 0; i < count; ++i) {
          float* row = a.out + (n * a.tokens + first + i) * width + h * a.head_dim;
          for (std::int64_t d = 0; d < a.head_dim; ++d)
            row[d] = out[static_cast<std::size_t>(d * kLanes + i)];
        }
      }
    }
}

}  // namespace sfumato
