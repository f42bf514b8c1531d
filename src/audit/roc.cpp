#include "sfumato/audit/roc.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "sfumato/audit/tail_probabilities.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr double kNormalQuantile95 = 1.959963984540054;  // two-sided

void check(std::span<const double> members, std::span<const double> others) {
  if (members.empty() || others.empty())
    throw UsageError("an attack is measured on members and on non-members; one of them is missing");
}

/// All scores in order, marked true where a member's.
std::vector<std::pair<double, bool>> ordered(std::span<const double> members,
                                             std::span<const double> others) {
  std::vector<std::pair<double, bool>> all;
  all.reserve(members.size() + others.size());
  for (const double score : members) all.emplace_back(score, true);
  for (const double score : others) all.emplace_back(score, false);
  std::sort(all.begin(), all.end());
  return all;
}

/// Calls visit(members, others) with the number of each in every run of equal scores, from low to
/// high.
template <typename Visit>
void each_tie(const std::vector<std::pair<double, bool>>& scores, const Visit& visit) {
  for (std::size_t begin = 0; begin < scores.size();) {
    int64_t members = 0, others = 0;
    std::size_t end = begin;
    for (; end < scores.size() && scores[end].first == scores[begin].first; ++end)
      ++(scores[end].second ? members : others);
    visit(members, others);
    begin = end;
  }
}

/// Hanley & McNeil's variance of the area, with Newcombe's symmetric treatment of the sizes.
double variance(double area, double members, double others) {
  const double half = (members + others) / 2 - 1;
  const double shape = (1 - area) / (2 - area) + area / (1 + area);
  return area * (1 - area) * (1 + half * shape) / (members * others);
}

/// The area below `value` that lies kNormalQuantile95 of its own standard deviations from it.
double lower_limit(double value, double members, double others) {
  double low = 0, high = value;
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    const double reach = middle + kNormalQuantile95 * std::sqrt(variance(middle, members, others));
    (reach < value ? low : high) = middle;
  }
  return low;
}

int64_t count_below(std::span<const double> scores, double threshold) {
  return std::ranges::count_if(scores, [=](double score) { return score < threshold; });
}

}  // namespace

Rate rate_of(int64_t hits, int64_t trials) {
  Rate rate{.hits = hits, .trials = trials};
  rate.value = static_cast<double>(hits) / static_cast<double>(trials);
  rate.lower = clopper_pearson_lower(hits, trials, 0.025);
  rate.upper = clopper_pearson_upper(hits, trials, 0.025);
  return rate;
}

Auroc auroc(std::span<const double> members, std::span<const double> others) {
  check(members, others);
  const auto m = static_cast<double>(members.size()), n = static_cast<double>(others.size());
  double pairs_won = 0;
  auto others_left = static_cast<double>(others.size());
  each_tie(ordered(members, others), [&](int64_t tied_members, int64_t tied_others) {
    others_left -= static_cast<double>(tied_others);
    pairs_won +=
        static_cast<double>(tied_members) * (others_left + 0.5 * static_cast<double>(tied_others));
  });
  Auroc area{.value = pairs_won / (m * n)};
  area.lower = lower_limit(area.value, m, n);
  area.upper = 1 - lower_limit(1 - area.value, m, n);  // the variance is symmetric about 1/2
  return area;
}

std::vector<RocPoint> roc_curve(std::span<const double> members, std::span<const double> others) {
  check(members, others);
  std::vector<RocPoint> curve{{0, 0}};
  int64_t members_below = 0, others_below = 0;
  each_tie(ordered(members, others), [&](int64_t tied_members, int64_t tied_others) {
    members_below += tied_members;
    others_below += tied_others;
    curve.push_back({static_cast<double>(others_below) / static_cast<double>(others.size()),
                     static_cast<double>(members_below) / static_cast<double>(members.size())});
  });
  return curve;
}

double threshold_at(std::span<const double> others, double false_positive_rate) {
  if (others.empty()) throw UsageError("a threshold needs non-members to be chosen on");
  // 0.07 * 100 is a little more than 7.
  const double allowed = false_positive_rate * static_cast<double>(others.size());
  const auto below = static_cast<std::size_t>(std::floor(allowed * (1 + 1e-12)));
  if (below >= others.size()) return std::numeric_limits<double>::infinity();
  std::vector<double> scores(others.begin(), others.end());
  const auto place = scores.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(scores.begin(), place, scores.end());
  return *place;
}

OperatingPoint operating_point(double target, double threshold, std::span<const double> members,
                               std::span<const double> others) {
  check(members, others);
  return {.target = target,
          .threshold = threshold,
          .false_positives = rate_of(count_below(others, threshold), std::ssize(others)),
          .true_positives = rate_of(count_below(members, threshold), std::ssize(members))};
}

}  // namespace sfumato
