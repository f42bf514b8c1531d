#include "run/card_curves.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "run/json_alike.h"
#include "sfumato/core/choices.h"
#include "sfumato/core/enum_names.h"
#include "sfumato/core/error.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/run/card_events.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSteps = 16;
/// Besides those that cards list: large ones decide where the attacker's false alarms are not rare.
constexpr double kOtherDeltas[] = {0.9,  0.7,  0.5,  0.3,  0.2,  0.1,  0.05, 0.02,
                                   0.01, 3e-3, 3e-4, 3e-5, 3e-6, 3e-7, 3e-8};

/// A point, with little work, which only makes it larger.
class Accounting {
 public:
  explicit Accounting(const Json& card)
      : accountant_(parse_enum<Accountant>(card.at("accountant").get<std::string>())),
        adjacency_(parse_enum<Adjacency>(card.at("adjacency").get<std::string>())),
        selection_(card_selection("the card", card)) {
    options_.tolerance = 1e-2;
    options_.points = 1 << 12;
    options_.max_points = 1 << 18;  // beyond it a point is that of the RDP
  }

  double epsilon(std::span<const PrivacyEvent> events, double delta) const {
    if (accountant_ != Accountant::kPld)
      return account_epsilon(accountant_, events, delta, adjacency_, selection_).epsilon;
    if (selection_) return account_selection(events, delta, adjacency_, *selection_, options_);
    return epsilon_from_pld(events, delta, adjacency_, options_).upper;
  }
  bool selects() const { return selection_.has_value(); }

 private:
  Accountant accountant_;
  Adjacency adjacency_;
  std::optional<Selection> selection_;
  PldOptions options_;
};

/// The card's stage of training; null where it has none that counts steps.
const Json* training_of(const Json& card) {
  for (const Json& stage : card.at("stages"))
    if (field(stage, "name") == "train" && field(stage, "declared") != Json(true) &&
        field(stage, "steps").is_number_integer())
      return &stage;
  return nullptr;
}

/// The card as if that many steps had been charged: what it counts then, it counts by its own rule.
Json after(const Json& card, std::int64_t steps) {
  Json earlier = card;
  for (Json& stage : earlier["stages"])
    if (field(stage, "name") == "train") stage["steps"] = stage["charged"] = steps;
  return earlier;
}

std::vector<std::pair<std::int64_t, double>> spent_by_step(const Json& card,
                                                           const Accounting& accounting) {
  std::vector<std::pair<std::int64_t, double>> points;
  const Json* training = training_of(card);
  if (training == nullptr || accounting.selects()) return points;
  const auto all = training->at("steps").get<std::int64_t>();
  if (all < 1) return points;
  const double delta = card.at("delta").get<double>();
  // ε grows about with the root of the steps: points at about equal distances of it.
  for (int i = 0; i <= kSteps; ++i) {
    const double share = static_cast<double>(i) / kSteps;
    const auto steps =
        i == kSteps
            ? all
            : static_cast<std::int64_t>(std::ceil(share * share * static_cast<double>(all)));
    if (!points.empty() && points.back().first == steps) continue;
    points.emplace_back(
        steps, steps == all
                   ? card.at("epsilon").get<double>()
                   : accounting.epsilon(card_events("the card", after(card, steps)), delta));
  }
  // More steps cost no less, whatever the little work on a point made of it.
  for (std::size_t i = points.size(); i-- > 1;)
    points[i - 1].second = std::min(points[i - 1].second, points[i].second);
  return points;
}

std::vector<std::pair<double, double>> profile_of(const Json& card, const Accounting& accounting) {
  std::vector<std::pair<double, double>> points = {
      {card.at("delta").get<double>(), card.at("epsilon").get<double>()}};
  const auto add = [&](double delta, double epsilon) {
    const auto same = [&](const auto& point) { return point.first == delta; };
    if (std::isfinite(epsilon) && std::ranges::none_of(points, same))
      points.emplace_back(delta, epsilon);
  };
  for (const Json& point : card.at("epsilon_at_delta"))
    add(point.at("delta").get<double>(), point.at("epsilon").get<double>());
  const std::vector<PrivacyEvent> events = card_events("the card", card);
  for (const double delta : kOtherDeltas) add(delta, accounting.epsilon(events, delta));
  std::ranges::sort(points, std::greater());
  for (std::size_t i = points.size(); i-- > 1;)
    points[i - 1].second = std::min(points[i - 1].second, points[i].second);
  return points;
}

}  // namespace

std::optional<CardCurves> card_curves(const Json& card) {
  if (field(card, "status") != "private") return std::nullopt;
  try {
    const Accounting accounting(card);
    return CardCurves{spent_by_step(card, accounting), profile_of(card, accounting)};
  } catch (const Error&) {  // a card of its own kind, which other checks speak of
  } catch (const nlohmann::json::exception&) {
  }
  return std::nullopt;
}

}  // namespace sfumato
