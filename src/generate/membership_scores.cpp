#include "sfumato/generate/membership_scores.h"

#include <fmt/format.h>

namespace sfumato {

std::string ScoreColumn::name() const {
  if (score == MembershipScore::kDiscriminator) return to_string(score);
  return timestep < 0 ? to_string(score) + "@mean"
                      : fmt::format("{}@{}", to_string(score), timestep);
}

}  // namespace sfumato
