#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/settings_tree.h"

// The declarations of stages, which are part of the mechanism; sections.h says how.
// clang-format off
namespace sfumato {

/// What a stage's section says in words of its own.
struct StageFacts {
  std::string name;        ///< of the section mechanism.stages.<name>, in plans, ledgers and cards
  std::string result;      ///< name of the file that the stage leaves in release/
  std::string help;        ///< of the section
  std::string noise;       ///< what noise_multiplier is
  std::string noise_unit;
  std::string share;       ///< how large a share is enough
};

/// How a stage meets the records: in each release every record with this probability.
struct StageSampling {
  double sample_rate = 1;
  int64_t releases = 1;
};

/// The section of a stage, mechanism.stages.<name>: whether it is on, and how noisy. Derive where a
/// stage has settings besides. What the stage does is a row of mechanism/stage.h.
struct StageSettings : Section {
  StageSettings(SettingsTree* tree, StageFacts facts);
  bool on() const { return noise_multiplier() || epsilon() || share(); }
  /// Override where a stage samples.
  virtual StageSampling sampling() const { return {}; }
  /// Override where a stage is made when training is over: all its other settings, in words that the
  /// frozen plan holds and that never change for equal settings (StagePlan::measures).
  virtual std::string measures() const { return {}; }

  const StageFacts stage;
  Setting<std::optional<double>> noise_multiplier{this, "noise_multiplier", std::nullopt,
      greater_than(0), stage.noise_unit,
      stage.noise + " Set at most one of this, epsilon and share; with none of them the stage is "
      "off."};
  Setting<std::optional<double>> epsilon{this, "epsilon", std::nullopt, greater_than(0), "",
      "The ε that the stage alone may spend at mechanism.delta; the noise follows from it."};
  Setting<std::optional<double>> share{this, "share", std::nullopt, strictly_between(0, 1), "",
      "Share of the budget mechanism.target_epsilon, counted in squared μ of Gaussian "
      "differential privacy; the noise follows from it. " + stage.share};
};

/// The sections of the stages in a tree, in their order.
std::vector<const StageSettings*> stage_settings(const SettingsTree& settings);

struct CentralImagesSettings : StageSettings {
  explicit CentralImagesSettings(SettingsTree* tree);
  StageSampling sampling() const override { return {sample_rate(), releases()}; }

  Setting<double> sample_rate{this, "sample_rate", 0.1, above_up_to(0, 1), "",
      "Probability with which each record independently enters one central image of its class. A "
      "public literal, never computed from the size of the private set."};
  Setting<int64_t> releases{this, "releases", 10, between(1, 100000), "images per class",
      "Number of central images of each class; each is charged to the budget."};
  Setting<double> clip_norm_l2{this, "clip_norm_l2", 0.0, at_least(0), "",
      "Bound on the L2 norm of one image, whose values are in [-1, 1]; 0 is the largest norm "
      "possible, data.image_size times the square root of data.channels."};
  Setting<double> expected_class_batch{this, "expected_class_batch", 0.0, at_least(0), "images",
      "Divisor of each noisy sum: about sample_rate times a public estimate of a class's size. 0 "
      "takes sample_rate / mechanism.sample_rate * mechanism.expected_batch_size / "
      "data.num_classes."};
};

struct ClassGaussiansSettings : StageSettings {
  explicit ClassGaussiansSettings(SettingsTree* tree);
  /// One of counts and means, and one of covariances about these.
  StageSampling sampling() const override { return {1, 2}; }

  Setting<int64_t> frequencies{this, "frequencies", 14, between(1, 256), "",
      "The covariances are those of so many lowest frequencies (DCT-II) of an image in each direction; "
      "at most its pixels. Fewer have less noise, and leave out what is fine."};
  Setting<double> clip_norm_l2{this, "clip_norm_l2", 0.0, at_least(0), "",
      "Bound on the L2 norm of those frequencies of an image, whose values are in [-1, 1], less the "
      "noisy mean of its class. The noise on the covariances grows with its square. 0 is half of the "
      "largest norm that an image can have, data.image_size times the square root of data.channels."};
};

inline constexpr const char kExpectedClassSize[] =
    "Divisor of each noisy sum: a public estimate of the number of images in a class. 0 takes "
    "mechanism.expected_batch_size / mechanism.sample_rate / data.num_classes.";

struct MeanEmbeddingSettings : StageSettings {
  explicit MeanEmbeddingSettings(SettingsTree* tree);

  Setting<int64_t> frequencies{this, "frequencies", 5000, between(1, 1000000), "",
      "Random frequencies w; an image's features are cos and sin of each w·x, for its values x in "
      "[0, 1]: twice as many numbers. More of them cost time and no privacy."};
  Setting<double> width{this, "width", 105.0, greater_than(0), "",
      "Squared width of the kernel that the features stand for: frequencies are drawn from N(0, I / "
      "width). About the usual squared distance of two images, from public ones: 105 for MNIST."};
  Setting<int64_t> seed{this, "seed", 0, at_least(0), "",
      "Seeds the frequencies, which are public; the privacy noise never depends on it."};
  Setting<double> expected_class_size{this, "expected_class_size", 0.0, at_least(0), "images",
      kExpectedClassSize};
};

struct SemanticQuerySettings : StageSettings {
  explicit SemanticQuerySettings(SettingsTree* tree);

  Setting<std::string> public_store{this, "public_store", "", any_value(), "",
      "A prepared record store of public images with classes, of the size and channels of the "
      "private ones: its classes are voted for. That it is public is your word, which the privacy "
      "card repeats; a store that any run used as private images is refused. Images that a network "
      "drew from private ones are known by the privacy_card.json or lineage.json of their corpus, "
      "beside them or in their archive, when they are prepared: copied without both, they are not."};
  Setting<std::string> features{this, "features", "convolution", any_value(), "",
      "Feature network in whose space an image's nearest classes are found, by the means of the public "
      "classes: convolution, pixels, lenet, efficientnet-lite0, squeezenet, inception or "
      "inception-clean (src/features/README.md). Its weights must be public."};
  Setting<std::string> weights{this, "weights", "", any_value(), "",
      "Weights file of the feature network, or its folder; empty for those without one, and for lenet, "
      "whose weights come with the program."};
  Setting<int64_t> votes_per_record{this, "votes_per_record", 1, between(1, 1000), "votes",
      "Each private image votes for this many public classes, those that are nearest to it. The noise "
      "grows with its square root. A public literal."};
};

struct FeatureMeansSettings : StageSettings {
  explicit FeatureMeansSettings(SettingsTree* tree);

  Setting<std::string> features{this, "features", "scattering", one_of({"scattering", "pixels"}), "",
      "What is averaged of an image (src/features/README.md), scaled down to norm 1 where it is more: "
      "features that follow from its bytes alone, bit for bit."};
  Setting<double> expected_class_size{this, "expected_class_size", 0.0, at_least(0), "images",
      kExpectedClassSize};
};

inline constexpr const char kExpectedRecords[] =
    "a public estimate of how many images they are of. 0 takes mechanism.expected_batch_size / "
    "mechanism.sample_rate, and of images held out data.holdout / (1 - data.holdout) times that.";

struct FeatureClassifierSettings : StageSettings {
  explicit FeatureClassifierSettings(SettingsTree* tree);
  StageSampling sampling() const override { return {sample_rate(), releases()}; }

  Setting<double> sample_rate{this, "sample_rate", 0.05, above_up_to(0, 1), "",
      "Probability with which each record independently enters one step of the classifier's training. "
      "A public literal."};
  Setting<int64_t> releases{this, "releases", 300, between(1, 100000), "",
      "Steps of the classifier's training, each one noisy sum of gradients."};
  Setting<std::string> features{this, "features", "scattering", one_of({"scattering", "pixels"}), "",
      "What is classified of an image (src/features/README.md), scaled down to norm 1 where it is more: "
      "features that follow from its bytes alone, bit for bit. Those of all images stay in memory "
      "while the stage runs, 4 bytes for each number."};
  Setting<double> learning_rate{this, "learning_rate", 8.0, above_up_to(0, 1000), "",
      "Of the classifier, which is linear: with momentum 0.9, on means of gradients of norm 1 at most. "
      "8 was chosen with noise of a thousandth of that on each number."};
  Setting<double> expected_records{this, "expected_records", 0.0, at_least(0), "images",
      "What sums of gradients are divided by, times sample_rate: a public estimate of how many images "
      "there are. 0 takes mechanism.expected_batch_size / mechanism.sample_rate."};
};

struct AccuracySettings : StageSettings {
  explicit AccuracySettings(SettingsTree* tree);
  std::string measures() const override;

  Setting<int64_t> classifiers{this, "classifiers", 1, between(1, 100), "",
      "How many classifiers `sfumato evaluate` may test at once. An image that all of them recognise "
      "moves the release by the square root of their number, and the noise grows with it."};
  Setting<double> expected_records{this, "expected_records", 0.0, at_least(0), "images",
      std::string("Divisor of the noisy numbers of right answers: ") + kExpectedRecords};
};

struct FrechetDistanceSettings : StageSettings {
  explicit FrechetDistanceSettings(SettingsTree* tree);
  std::string measures() const override;
  static constexpr int64_t kMostDimensions = 192;

  Setting<std::string> features{this, "features", "scattering",
      one_of({"convolution", "scattering", "pixels", "lenet", "efficientnet-lite0", "squeezenet",
              "inception", "inception-clean"}), "",
      "Feature network whose features are compared (src/features/README.md). Those after lenet, which "
      "is for grey images, need --weights of `sfumato evaluate`."};
  Setting<int64_t> dimension{this, "dimension", 16, between(1, kMostDimensions), "",
      "Dimensions to which a fixed random projection brings features that have more. More of them see "
      "finer differences, and the noise, which is on about half the square of this number, pushes the "
      "distance up by far more."};
  Setting<double> expected_records{this, "expected_records", 0.0, at_least(0), "images",
      std::string("Divisor of the noisy sums of features and of their products, 2 or more: ") +
      kExpectedRecords};
};

}  // namespace sfumato
// clang-format on
