#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "sfumato/privacy/adjacency.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

/// A sum over records of which nothing leaves but release_statistic(): `rows` rows of `columns`
/// numbers, to one row of which each record adds one vector, clipped.
///
/// Sensitivity. A record changes one row only, by a vector v with ||v|| <= clip_norm_l2 = C, so the
/// whole array moves by at most C in L2 when the record is added, removed or blanked out, whatever
/// the others are. (Replaced by another, which may lie in another row: by at most 2C, the factor
/// that the adjacency accounts for; by sqrt(2) C where negative numbers are kept out.) This holds
/// for the numbers in memory and not only for the real ones: vectors are truncated towards zero to
/// whole multiples of a fixed power of two, and summed as integers, without rounding and in any
/// order.
class StatisticSum {
 public:
  /// UsageError unless clip_norm_l2 is positive and finite, and for more than 2^23 columns.
  StatisticSum(std::int64_t rows, std::int64_t columns, double clip_norm_l2,
               Contributions contributions = Contributions::kAny);

  /// Adds `values` min(1, C / ||values||) to `row`; a vector whose norm is not finite adds nothing,
  /// and where contributions are kNonNegative a number below 0 counts as 0.
  /// UsageError for a row or a length that does not fit, or more than 2^30 records.
  void add(std::int64_t row, std::span<const float> values);

  /// Adds what `other` summed of other records: the same sum as if one had taken them all.
  /// UsageError unless it is one of the same rows, columns, bound and contributions.
  void merge(StatisticSum&& other);

  double clip_norm_l2() const { return clip_norm_l2_; }
  Contributions contributions() const { return contributions_; }

 private:
  friend std::vector<double> release_statistic(StatisticSum&& sum, double noise_multiplier,
                                               const SecureKey& key, ChargedStep&& charge);
  friend class StatisticSumInspector;  // of tests
  void count(std::int64_t records);
  std::int64_t columns_;
  double clip_norm_l2_;
  Contributions contributions_;
  double unit_;  ///< what 1 stands for in sums_: a power of two, C 2^-32 or up to twice that
  std::int64_t records_ = 0;
  std::vector<std::int64_t> sums_;
};

/// The Gaussian mechanism: sum + N(0, (noise_multiplier C)^2) on every number, whether or not a
/// record came its way. `charge` proves that the ledger holds this release on disk; it is consumed.
/// A number's noise is half the sum of four independent normals (streams {kSideStatistic, release
/// number, 0 ... 3}), and the result is rounded to a grid of a thousandth of the noise, so that its
/// last digits do not tell the sum (Mironov 2012; Holohan, Braghin 2021): hardened against, not
/// proven for, floating-point attacks. PrivacyError unless 0 < noise_multiplier <= 10^9.
std::vector<double> release_statistic(StatisticSum&& sum, double noise_multiplier,
                                      const SecureKey& key, ChargedStep&& charge);

}  // namespace sfumato
