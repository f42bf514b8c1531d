#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sfumato {

// How well a score tells members of a training set from other records. Everywhere here a lower
// score speaks for membership. Scores are finite; UsageError for an empty set.

/// Share of hits among independent trials, with its Clopper-Pearson interval of 95 %.
struct Rate {
  int64_t hits = 0, trials = 0;
  double value = 0, lower = 0, upper = 0;
};
Rate rate_of(int64_t hits, int64_t trials);

/// Area under the ROC curve: the chance that a member scores below another record, ties counting
/// half (Mann-Whitney).
struct Auroc {
  double value = 0;
  /// 95 %: the values that do not lie more than 1.96 standard deviations of their own from `value`,
  /// with the variance of Hanley & McNeil 1982 (Newcombe 2006, method 5). Unlike the usual interval
  /// it keeps its width when the sets are separated perfectly.
  double lower = 0, upper = 0;
};
Auroc auroc(std::span<const double> members, std::span<const double> others);

struct RocPoint {
  double false_positive_rate = 0, true_positive_rate = 0;
};
/// From (0, 0) to (1, 1), one point for each distinct score.
std::vector<RocPoint> roc_curve(std::span<const double> members, std::span<const double> others);

/// The largest threshold at which at most that share of `others` lies strictly below.
double threshold_at(std::span<const double> others, double false_positive_rate);

/// What the rule "below the threshold: member" achieves on records that did not choose it.
struct OperatingPoint {
  double target = 0;  ///< false positive rate that the threshold was chosen for
  double threshold = 0;
  Rate false_positives, true_positives;
};
OperatingPoint operating_point(double target, double threshold, std::span<const double> members,
                               std::span<const double> others);

}  // namespace sfumato
