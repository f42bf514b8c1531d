#include "sfumato/audit/claimed_bound.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/report/privacy_card.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

double number_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : std::nan("");
}

bool is_point(double epsilon, double delta) {
  return std::isfinite(epsilon) && epsilon >= 0 && delta >= 0 && delta < 1;
}

}  // namespace

std::optional<ClaimedBound> ClaimedBound::from_card(const Json& card) {
  if (!card.is_object() || card.value("status", Json()) != "private") return std::nullopt;
  ClaimedBound claim;
  claim.epsilon_ = number_of(card, "epsilon");
  claim.delta_ = number_of(card, "delta");
  if (!is_point(claim.epsilon_, claim.delta_)) return std::nullopt;
  claim.epsilon_at_delta_.emplace_back(claim.delta_, claim.epsilon_);
  if (const auto curve = card.find("epsilon_at_delta"); curve != card.end() && curve->is_array())
    for (const Json& entry : *curve) {
      if (!entry.is_object()) continue;
      const double epsilon = number_of(entry, "epsilon"), delta = number_of(entry, "delta");
      if (is_point(epsilon, delta)) claim.epsilon_at_delta_.emplace_back(delta, epsilon);
    }
  return claim;
}

double ClaimedBound::max_true_positive_rate(double false_positive_rate) const {
  return largest_true_positive_rate(epsilon_at_delta_, false_positive_rate);
}

}  // namespace sfumato
