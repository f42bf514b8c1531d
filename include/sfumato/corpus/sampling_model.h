#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sfumato/corpus/candidate_choice.h"
#include "sfumato/generate/families.h"

namespace sfumato {

struct Config;

/// Where RUN_OR_MODEL leads: a run directory (with release/), its release/ or a diffusers folder.
struct ModelPlace {
  std::filesystem::path model;        ///< of a family's layout
  std::filesystem::path run;          ///< empty unless a run directory was named
  std::filesystem::path config_file;  ///< the run's config.yaml; empty if there is none
};
/// The release/ of a run whose ledger is there leads to that run. UsageError, with what is missing,
/// for anything else; DataError as family_in.
ModelPlace find_model(const std::filesystem::path& run_or_model);

/// A generator ready for drawing, with what is known about it.
struct SamplingModel {
  std::unique_ptr<Generator> generator;
  /// Void where there is none, or it is of other weights; what is not private claims nothing.
  nlohmann::ordered_json card;
  nlohmann::ordered_json origin;  ///< for lineage.json
  std::string weights_sha256;
  std::string config_sha256;
  ImageShape shape;
  int64_t num_classes = 0;               ///< 0: the network takes no labels
  std::vector<std::string> class_names;  ///< num_classes of them; numbers where nobody named them
  /// As long as class_names: the card says that the class may have had no image.
  std::vector<bool> may_be_untrained;
  bool any_may_be_untrained = false;  ///< the card says so of all classes, without telling which
  std::optional<int64_t> null_label;  ///< the row that stands for "no label", if it was trained
  /// Of the classes, from the noisy label histogram released beside the network; empty without one.
  std::vector<double> class_proportions;
  /// By the noisy means of features released beside it, and the noisy classifier of features where
  /// there is one; null where sample.candidates is 1.
  std::unique_ptr<CandidateChoice> choice;
  nlohmann::ordered_json choice_files;  ///< "<stage>_sha256" of each file of these
};

/// Opens the generator (open_generator) on the CPU and with it fills those settings of `config`
/// that nobody has set. Generator::move_to takes it elsewhere.
///
/// The number of classes is data.num_classes where set, else the card's public facts, else the rows
/// of the class table (less one, for "no label", if guidance is asked for). Their names are
/// data.class_names where set, else the card's.
/// UsageError: guidance that the network was not trained for, an image size that is not known.
/// Sampling chooses among candidates by feature_means.json, which is then needed, and by
/// feature_classifier.json where it is there.
/// DataError: as open_generator; a damaged label_histogram.json, feature_means.json or
/// feature_classifier.json, or one that the card beside the network does not count.
SamplingModel open_sampling_model(const ModelPlace& place, Config& config);
/// What draws its images, with the settings sample.*. Borrows the generator.
std::unique_ptr<ImageSampler> sampler_of(const SamplingModel& model, const Config& config);

/// How many images of each class (one entry where num_classes is 0). `count`: in all, spread in
/// `proportions` where there are some, by the largest remainder (the first classes where remainders
/// are equal), else evenly, the first classes getting the remainder; `only_class`: all of them of
/// this class; `per_class`: the counts themselves. UsageError where these contradict each other or
/// the network.
struct CountOptions {
  std::optional<int64_t> count = std::nullopt;
  std::optional<int64_t> only_class = std::nullopt;
  std::vector<int64_t> per_class = {};
  /// Classes that get no image unless they are named: by number, as many as there are classes.
  std::vector<bool> left_out = {};
};
std::vector<int64_t> images_per_class(const CountOptions& options, int64_t num_classes,
                                      std::span<const double> proportions = {});
/// Whether the proportions decide the counts.
bool takes_proportions(const CountOptions& options, std::span<const double> proportions);

}  // namespace sfumato
