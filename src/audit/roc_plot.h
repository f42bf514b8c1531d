#pragma once
#include <string>
#include <vector>

#include "sfumato/audit/claimed_bound.h"
#include "sfumato/audit/roc.h"

namespace sfumato {

struct NamedRoc {
  std::string name;  ///< plain text
  std::vector<RocPoint> curve;
};

/// ROC curves as an SVG picture for a page: both axes linear from 0 to 1, or both logarithmic from
/// `least` (in (0, 1)) on. The region that `claim` excludes is shaded; the diagonal is what
/// guessing achieves.
std::string roc_svg(const std::vector<NamedRoc>& curves, const ClaimedBound* claim,
                    bool logarithmic, double least);

}  // namespace sfumato
