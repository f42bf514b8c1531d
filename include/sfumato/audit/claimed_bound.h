#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <utility>
#include <vector>

namespace sfumato {

/// What a privacy card permits an attacker to find.
class ClaimedBound {
 public:
  /// Nothing where the card claims nothing. `card` as read_privacy_card returns it.
  static std::optional<ClaimedBound> from_card(const nlohmann::ordered_json& card);

  double epsilon() const { return epsilon_; }
  double delta() const { return delta_; }
  /// The most that the claim permits at this false positive rate: largest_true_positive_rate (see
  /// report/privacy_card.h) of the card's ε at δ and of the further points of its curve, where it
  /// has one.
  double max_true_positive_rate(double false_positive_rate) const;

 private:
  double epsilon_ = 0, delta_ = 0;
  std::vector<std::pair<double, double>> epsilon_at_delta_;  ///< (δ, ε), the claim's among them
};

}  // namespace sfumato
