#include "sfumato/privacy/adjacency.h"

#include <cmath>

namespace sfumato {

RecordShift record_shift(Adjacency adjacency) {
  if (adjacency == Adjacency::kReplaceOne) return {-1.0, 1.0};
  return {1.0, 0.0};
}

double sensitivity_in_clip_norms(Adjacency adjacency, Contributions contributions) {
  const RecordShift shift = record_shift(adjacency);
  if (contributions == Contributions::kNonNegative) return std::hypot(shift.first, shift.second);
  return std::fabs(shift.first - shift.second);
}

}  // namespace sfumato
