#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "sfumato/grad/clipped_sum.h"

namespace sfumato {

/// Looks at a clipped sum that never reaches weights: for audits and `probe`, on data that one
/// holds oneself, and for tests. It lives here, above everything that trains or releases.
class ClippedSumInspector {
 public:
  static const std::vector<at::Tensor>& sums(const ClippedSum& sum) { return sum.sums_; }
};

}  // namespace sfumato
