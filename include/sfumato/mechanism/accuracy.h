#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/mechanism/noisy_release.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// The stage's name in settings, plans, ledgers and cards.
inline constexpr std::string_view kAccuracyStage = "accuracy";

/// One classifier of a released evaluation.
struct NoisyAnswers {
  std::string classifier;          ///< "small"
  std::string detail;              ///< what it is and how it was trained, in a line
  double noisy_right_answers = 0;  ///< as released; may be negative, or more than there are images
  bool operator==(const NoisyAnswers&) const = default;
};

/// What the stage released, and what it was measured with: of the corpus's images and labels, which
/// trained.
struct NoisyAccuracy : NoisyRelease {
  std::int64_t repeats = 1;  ///< trainings of each classifier, whose right answers are averaged
  std::uint64_t seed = 0;    ///< of the first of them
  std::vector<NoisyAnswers> classifiers;

  /// Noisy right answers over expected_records: may lie outside [0, 1].
  double accuracy(const NoisyAnswers& one) const {
    return one.noisy_right_answers / expected_records;
  }
  bool operator==(const NoisyAccuracy&) const = default;
};
/// release/accuracy.json.
nlohmann::ordered_json to_json(const NoisyAccuracy& accuracy);
/// The inverse. DataError, which names the file, for what is none.
NoisyAccuracy read_noisy_accuracy(const std::filesystem::path& file);

/// The bound on one record's contribution where k classifiers are tested: sqrt(k).
double norm_of_answers(std::int64_t classifiers);

/// Writes what a record adds, a number for each classifier.
using Answers = std::function<void(std::int64_t record, std::span<float> right)>;

/// How often each of `classifiers` networks is right on `records` records, ready to be released by
/// MechanismSession::release.
///
/// Sensitivity. `answers` writes for a record, into k numbers, the share of trainings in which each
/// of the k classifiers named its class: r in [0, 1]^k, so that ||r||_2 <= sqrt(k), the stage's
/// clip_norm_l2 (StatisticSum clips what is longer, counts a number below 0 as 0 and what is not
/// finite not at all). r must be a function of the record and of what was released before, and of
/// nothing else that is private: then a record that is added, removed or blanked out moves the k
/// sums by at most sqrt(k) in L2, whatever the others are. (Replaced: by at most sqrt(2) as much,
/// as adjacency.h counts contributions without negative numbers.) The classifiers are chosen after
/// what training released: the adaptive part of the composition, in which the plan counts training
/// and this release in full, on whichever private records it is made.
///
/// PrivacyError if the stage is not one release of every record; UsageError for no classifier, or
/// more than the stage was frozen for.
StatisticSum count_right_answers(const StagePlan& stage, std::int64_t records,
                                 std::int64_t classifiers, const Answers& answers);

}  // namespace sfumato
