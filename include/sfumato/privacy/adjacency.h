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

/// |first - second|: the L2 sensitivity of the clipped sum to a record that is sampled for sure.
double sensitivity_in_clip_norms(Adjacency adjacency);

}  // namespace sfumato
