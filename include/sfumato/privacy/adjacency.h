#pragma once
#include <string>
#include <string_view>

namespace sfumato {

/// Which pairs of data sets the guarantee holds for. "Record" is one image; with several records
/// per unit of privacy (mechanism.h) it is all of one unit's records.
enum class Adjacency {
  kAddRemove,   ///< one record is added or removed; the number of records is private
  kZeroOut,     ///< one record is replaced by one that contributes nothing; the number is public
  kReplaceOne,  ///< one record is replaced by any other; the number is public
};

/// "add_remove", "zero_out", "replace_one".
std::string to_string(Adjacency adjacency);

/// The inverse; UsageError names the three words and the nearest one.
Adjacency parse_adjacency(std::string_view text);

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
