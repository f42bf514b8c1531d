#include "kernels/clip_accumulate.h"

#include "kernels/element_access.h"

namespace sfumato {

void clip_accumulate_cpu(const KeptGradient* table, std::int64_t entries, const float* factors,
                         std::int64_t examples, bool overwrite) {
  for (std::int64_t e = 0; e < entries; ++e) {
    const KeptGradient& entry = table[e];
    const float* f = factors + entry.factor_row * examples;
    for (std::int64_t j = 0; j < entry.count; ++j) {
      double sum = overwrite ? 0.0 : double{entry.sum[j]};
      for (std::int64_t i = 0; i < examples; ++i)
        if (f[i] != 0)
          sum += double{f[i]} *
                 double{element_at(entry.gradients, entry.element, i * entry.count + j)};
      entry.sum[j] = static_cast<float>(sum);
    }
  }
}

std::int64_t prepare_clip_accumulate(KeptGradient* table, std::int64_t entries) {
  std::int64_t blocks = 0;
  for (std::int64_t e = 0; e < entries; ++e) {
    const std::int64_t chunk = clip_accumulate_chunk(table[e].element);
    table[e].first_block = blocks;
    blocks += (table[e].count + chunk - 1) / chunk;
  }
  return blocks;
}

}  // namespace sfumato
