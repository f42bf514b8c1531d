#include "sfumato/privacy/adjacency.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"

namespace sfumato {

std::string to_string(Adjacency adjacency) {
  switch (adjacency) {
    case Adjacency::kAddRemove: return "add_remove";
    case Adjacency::kZeroOut: return "zero_out";
    case Adjacency::kReplaceOne: return "replace_one";
  }
  throw UsageError("unknown adjacency");
}

Adjacency parse_adjacency(std::string_view text) {
  const std::array all = {Adjacency::kAddRemove, Adjacency::kZeroOut, Adjacency::kReplaceOne};
  std::array<std::string, all.size()> names;
  for (std::size_t i = 0; i < all.size(); ++i) {
    names[i] = to_string(all[i]);
    if (names[i] == text) return all[i];
  }
  throw UsageError(fmt::format("adjacency '{}' is none of add_remove, zero_out, replace_one{}",
                               text, did_you_mean(text, names)));
}

RecordShift record_shift(Adjacency adjacency) {
  if (adjacency == Adjacency::kReplaceOne) return {-1.0, 1.0};
  return {1.0, 0.0};
}

double sensitivity_in_clip_norms(Adjacency adjacency) {
  const RecordShift shift = record_shift(adjacency);
  return std::fabs(shift.first - shift.second);
}

}  // namespace sfumato
