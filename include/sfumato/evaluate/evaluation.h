#pragma once
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/core/enum_names.h"
#include "sfumato/evaluate/classifier.h"
#include "sfumato/evaluate/image_sets.h"
#include "sfumato/evaluate/manifold.h"

namespace sfumato {

/// What is measured; the names are those of --metrics.
enum class Metric {
  kFrechetDistance,
  kKid,
  kInceptionScore,
  kPrecisionRecall,  ///< with density and coverage
  kClassFrechetDistance,
  kAccuracy,  ///< with that of a classifier trained on real images, and label fidelity
};
template <>
struct EnumNames<Metric> {
  static constexpr std::string_view kWhat = "metric";
  static constexpr EnumName<Metric> kTable[] = {
      {Metric::kFrechetDistance, "frechet_distance"},
      {Metric::kKid, "kid"},
      {Metric::kInceptionScore, "inception_score"},
      {Metric::kPrecisionRecall, "precision_recall"},
      {Metric::kClassFrechetDistance, "class_frechet_distance"},
      {Metric::kAccuracy, "accuracy"}};
};

/// By name, or by what other programs call them (is, prdc, ...), in upper or lower case. UsageError
/// for other words; "fid" is one unless all `networks` are Inception's.
std::vector<Metric> metrics_of(const std::vector<std::string>& names,
                               const std::vector<std::string>& networks);
/// In the order of `names`. UsageError: an unknown name, or one that stands twice.
std::vector<ClassifierKind> classifiers_of(const std::vector<std::string>& names);

/// What may be done with numbers that say something of the reference (law 7).
enum class ReferenceStatus {
  kPrivate,            ///< they stay with its holder
  kDeclaredPublic,     ///< by the user's word
  kReleasedWithNoise,  ///< as stages of a run's mechanism (noisy_evaluation.h)
};

/// What is to be said of one stage of an evaluation.
struct NoisyStage {
  std::string name;             ///< of the stage: "accuracy"
  double noise_stddev = 0;      ///< of each number that was released
  double expected_records = 0;  ///< the public literal that they are divided by
  /// What was released and how noisy it is, in a sentence or two that begin with a small letter and
  /// have no full stop at their end.
  std::string statement;
};

/// What is to be said of numbers that were released with noise.
struct NoiseStatement {
  std::vector<NoisyStage> stages;  ///< one at least
  std::string tested_on;           ///< "training images", "held-out images"
  double epsilon = 0, delta = 0;   ///< of all that the run released, these numbers included
  std::string unit, adjacency, accountant;
  bool claim_stands = true;  ///< false: the noise came from a test key
};

/// One number, with all that it may only be compared together with.
struct Measurement {
  std::string key;    ///< of JSON: "frechet_distance"
  std::string title;  ///< "FD-pixels"
  double value = std::numeric_limits<double>::quiet_NaN();
  double std = std::numeric_limits<double>::quiet_NaN();  ///< NaN: none
  bool smaller_is_better = false;
  int64_t corpus_images = 0, reference_images = 0;
  std::string split;  ///< of the reference
  std::string network, preprocessing, weights_sha256;
  std::string detail;  ///< "k = 3", "100 subsets of 1000", ...
};

/// What is known of a class.
struct ClassRow {
  std::string name;
  int64_t corpus_images = 0, reference_images = 0;
  double frechet_distance = std::numeric_limits<double>::quiet_NaN();
  bool fewer_than_dimensions = false;
  double accuracy = std::numeric_limits<double>::quiet_NaN();
  double real_accuracy = std::numeric_limits<double>::quiet_NaN();
  double label_fidelity = std::numeric_limits<double>::quiet_NaN();
};

/// An image of the corpus and the nearest of the reference, rows of the sets used.
struct NearestPair {
  int64_t corpus_row = 0, reference_row = 0;
  double distance = 0;
};

struct EvaluationOptions {
  std::vector<std::string> networks = {"convolution"};
  std::filesystem::path weights;
  std::vector<Metric> metrics;  ///< empty: all that the sets allow
  ReferenceStatus status = ReferenceStatus::kPrivate;
  ClassifierOptions classifier;
  /// Networks that are trained, each with the options above.
  /// Classes have the accuracies of the first.
  std::vector<ClassifierKind> classifiers = {ClassifierKind::kSmall};
  int64_t repeats = 1;  ///< of training, with seeds one after another
  /// Trains them on real images as well: real_accuracy, label_fidelity. As long again.
  bool ceiling = true;
  uint64_t seed = 0;
};

struct Evaluation {
  ReferenceStatus status = ReferenceStatus::kPrivate;
  std::vector<Measurement> measurements;  ///< of the first network first
  std::vector<ClassRow> classes;          ///< of the first network; empty without classes
  std::string class_classifier;           ///< whose accuracies `classes` have
  std::vector<NearestPair> nearest;       ///< by the first network, nearest first
  std::optional<NoiseStatement> noise;    ///< where status is kReleasedWithNoise
  std::vector<std::string> left_out;      ///< what was not measured, and why
  std::vector<std::string> warnings;
};

/// PrivacyError: the reference is declared public, and is a record store of private images. It is
/// what the corpus' private network was trained on, as the corpus' card says; images held out; a
/// part of a split; or something trained privately on it, or on a part or copy beside it.
void require_may_be_public(const ImageSet& corpus, const ImageSet& reference);

/// `test`: real images for accuracy; null: a sixth of the reference is set apart for it.
Evaluation evaluate(const ImageSets& sets, const ImageSet* test, const EvaluationOptions& options);
/// Of features alone: all but what needs images. No labels.
Evaluation evaluate_features(const FeatureSet& corpus, const FeatureSet& reference,
                             const std::string& split, const EvaluationOptions& options);

}  // namespace sfumato
