#pragma once
#include "sfumato/core/choices.h"

namespace sfumato {

/// Where a sampled record moves the clipped sum in the two neighbouring worlds, in clip norms.
struct RecordShift {
  double first;
  double second;
};

/// The worst case of a contribution of norm at most 1: (1, 0) for add-remove and zero-out, where it
/// is there in one world only; (-1, +1) for replace-one, where two records pull opposite ways. This
/// is the only place that knows the factor 2 of replace-one; nobody else may double a sensitivity.
RecordShift record_shift(Adjacency adjacency);

/// How the contributions of two records may lie to each other.
enum class Contributions {
  kAny,          ///< opposite ways, like gradients
  kNonNegative,  ///< no number of them is below 0, like counts: at most at right angles
};

/// The L2 sensitivity of the clipped sum to a record that is sampled for sure: |first - second|, or
/// less where replaced contributions a, b cannot pull opposite ways: <a, b> >= 0 for vectors
/// without negative numbers, so |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b> <= 2, which two counts of
/// different classes reach.
double sensitivity_in_clip_norms(Adjacency adjacency,
                                 Contributions contributions = Contributions::kAny);

}  // namespace sfumato
