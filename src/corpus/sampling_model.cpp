#include "sfumato/corpus/sampling_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "corpus/model_classes.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/sha256.h"
#include "sfumato/io/json_file.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/card_alone.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/run/weights_hash.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// A public fact on the card, 0 if it says nothing.
int64_t public_fact(const Json& card, const char* name) {
  if (!card.contains("public_facts") || !card["public_facts"].is_object()) return 0;
  const Json& facts = card["public_facts"];
  return facts.contains(name) && facts[name].is_number_integer() ? facts[name].get<int64_t>() : 0;
}

ImageShape shape_of(const GeneratorFacts& facts, const Json& card, const Config& config) {
  ImageShape shape{.channels = facts.channels};
  if (facts.size) {
    shape.height = (*facts.size)[0];
    shape.width = (*facts.size)[1];
    return shape;
  }
  const int64_t side = config.data.image_size.is_default() ? public_fact(card, "image_size")
                                                           : config.data.image_size();
  if (side <= 0)
    throw UsageError(
        "neither the network's config.json (sample_size) nor its privacy card says "
        "how large its images are; set data.image_size");
  shape.height = shape.width = side;
  return shape;
}

void find_classes(std::int64_t rows, const Config& config, SamplingModel& model) {
  const bool guidance = config.sample.guidance() > 0;
  if (rows == 0) {
    if (guidance)
      throw UsageError(
          "sample.guidance needs a network with classes, and this one has none; set it "
          "to 0");
    return;
  }
  int64_t classes = config.data.num_classes.is_default() ? 0 : config.data.num_classes();
  if (classes == 0) classes = public_fact(model.card, "num_classes");
  if (classes == 0) classes = guidance ? rows - 1 : rows;
  if (classes < 1 || classes > rows)
    throw UsageError(
        fmt::format("data.num_classes={} does not fit the network's class table of {} "
                    "rows",
                    classes, rows));
  if (guidance && classes == rows)
    throw UsageError(
        "sample.guidance needs a network trained with diffusion.label_dropout, and "
        "this one has no row for 'no label'; set it to 0");
  model.num_classes = classes;
  if (classes < rows) model.null_label = classes;
}

/// What the claim on the card does not cover may be exact: what is drawn by it would tell it.
void check_covered(const fs::path& file, const std::string& bytes, const std::string& name,
                   const std::string& else_do, const Json& card) {
  const std::string remedy =
      fmt::format("put the released file back beside its card, or {}", else_do);
  const std::string found = sha256_hex(bytes);
  if (card.contains("stages") && card["stages"].is_array())
    for (const Json& stage : card["stages"]) {
      if (!stage.is_object() || stage.value("name", Json()) != name) continue;
      if (stage.value("result_sha256", Json()) == found) return;
      throw DataError(fmt::format(
          "'{}' is not what the card beside it counts as the stage '{}': its SHA-256 is {}, on the "
          "card {}; {}",
          file.string(), name, found, stage.value("result_sha256", Json()).dump(), remedy));
    }
  throw DataError(
      fmt::format("'{}' is there, but the card beside it counts no stage '{}': its numbers may be "
                  "exact ones, which sampling would give away; {}",
                  file.string(), name, remedy));
}

/// The shares of the classes in a released label histogram; empty where there is none.
std::vector<double> proportions_in(const fs::path& folder, const StageFacts& stage,
                                   const Json& card) {
  const fs::path file = folder / stage.result;
  if (!fs::exists(file)) return {};
  const std::string bytes = read_file(file);
  check_covered(file, bytes, stage.name, "move it away to draw all classes alike", card);
  const nlohmann::json histogram = parse_json(bytes, fmt::format("'{}'", file.string()));
  const auto refuse = [&] {
    throw DataError(
        fmt::format("'{}' is no label histogram: its 'proportions' must be numbers of "
                    "0 or more that add up to 1; use --per-class, or move it away",
                    file.string()));
  };
  if (!histogram.is_object() || !histogram.contains("proportions") ||
      !histogram["proportions"].is_array())
    refuse();
  std::vector<double> proportions;
  double sum = 0;
  for (const nlohmann::json& value : histogram["proportions"]) {
    if (!value.is_number() || !(value.get<double>() >= 0)) refuse();
    proportions.push_back(value.get<double>());
    sum += proportions.back();
  }
  if (!(std::abs(sum - 1) < 1e-6)) refuse();
  return proportions;
}

bool is_left_out(const std::vector<bool>& left_out, int64_t label) {
  return label < std::ssize(left_out) && left_out[static_cast<std::size_t>(label)];
}

[[noreturn]] void throw_all_left_out() {
  throw UsageError(
      "the card beside the network says of every class that it may never have been trained; say "
      "with --per-class or --class what to draw");
}

/// The shares of the classes that are drawn; those of the others go to them.
std::vector<double> without(std::span<const double> proportions,
                            const std::vector<bool>& left_out) {
  std::vector<double> shares(proportions.begin(), proportions.end());
  double sum = 0;
  bool any = false;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    if (is_left_out(left_out, static_cast<int64_t>(i))) {
      shares[i] = 0;
      any = true;
    }
    sum += shares[i];
  }
  if (!any) return shares;
  if (!(sum > 0)) throw_all_left_out();
  for (double& share : shares) share /= sum;
  return shares;
}

/// `total` images in these proportions, by the largest remainder.
std::vector<int64_t> in_proportion(int64_t total, std::span<const double> proportions) {
  std::vector<int64_t> counts;
  std::vector<double> remainders;
  int64_t left = total;
  for (const double share : proportions) {
    const double quota = static_cast<double>(total) * share;
    counts.push_back(std::min(static_cast<int64_t>(quota), left));
    remainders.push_back(quota - std::floor(quota));
    left -= counts.back();
  }
  std::vector<std::size_t> order(counts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater{}, [&](std::size_t i) { return remainders[i]; });
  for (std::size_t i = 0; left > 0; i = (i + 1) % order.size()) {
    if (!(proportions[order[i]] > 0))
      continue;  // a class without a share gets none of what is left
    ++counts[order[i]];
    --left;
  }
  return counts;
}

Json card_for(const fs::path& model_folder, const std::string& weights) {
  const Json card = read_privacy_card(model_folder / "privacy_card.json");
  if (card.value("weights_sha256", Json()) == weights)
    return card["status"] == "private" ? card : without_claim(card);
  if (card["status"] == "void") return without_claim(card);  // it may be none at all
  if (!card.contains("weights_sha256") || !card["weights_sha256"].is_string())
    return voided(without_claim(card), "the card does not say which weights it was written for");
  return voided(without_claim(card),
                "the weights beside the card are not those it was written for");
}

/// The run that a folder was released by and still lies in; empty if there is none.
fs::path run_of_release(const fs::path& folder) {
  std::error_code ignored;
  for (const fs::path& place :
       {fs::absolute(folder, ignored).lexically_normal(), fs::weakly_canonical(folder, ignored)}) {
    const fs::path release = place.has_filename() ? place : place.parent_path();
    if (release.filename() == "release" && fs::exists(release.parent_path() / "ledger.jsonl"))
      return release.parent_path();
  }
  return {};
}

/// What there is instead of a release of the whole run.
std::string nothing_released(const fs::path& run) {
  const std::vector<int64_t> steps = checkpoint_steps(run / "private" / "checkpoints");
  const std::string finish =
      fmt::format("the run '{}' is not finished and has released nothing yet: go on with it: {}",
                  run.string(), resume_command(run));
  if (steps.empty() || steps.back() == 0) return finish + "; it has no checkpoint to draw from";
  return fmt::format(
      "{}, or draw from a checkpoint with {}@{} (there are those of {} {}). Its images are claimed "
      "at the epsilon of the whole plan, so that they may be looked at to choose one",
      finish, run.string(), steps.back(), steps.size() == 1 ? "step" : "steps", steps_text(steps));
}

}  // namespace

ModelPlace find_model(const fs::path& path) {
  const auto holds_model = [](const fs::path& folder) { return family_in(folder) != nullptr; };
  if (!fs::is_directory(path))
    throw UsageError(
        fmt::format("'{}' is not a folder; name a run directory or a folder with a "
                    "diffusers model",
                    path.string()));
  // Where its ledger is at hand, a release is as private as that proves.
  if (const fs::path run = run_of_release(path); !run.empty()) return find_model(run);
  ModelPlace place;
  const bool is_run = fs::exists(path / "ledger.jsonl") || fs::exists(path / "private") ||
                      holds_model(path / "release");
  if (is_run) {
    if (!holds_model(path / "release")) throw UsageError(nothing_released(path));
    place.run = path;
    place.model = path / "release";
    if (fs::exists(path / "config.yaml")) place.config_file = path / "config.yaml";
    return place;
  }
  if (!holds_model(path))
    throw UsageError(
        fmt::format("'{}' is neither a run directory (release/) nor a folder with a generator of a "
                    "known family ({}); name one of these",
                    path.string(), known_layouts()));
  place.model = path;
  return place;
}

/// What the file that a stage released holds, noted among what decides the choice.
std::string choice_file(const fs::path& file, const StageFacts& stage, SamplingModel& model) {
  std::string bytes = read_file(file);
  check_covered(file, bytes, stage.name, "set sample.candidates=1", model.card);
  model.choice_files[stage.name + "_sha256"] = sha256_hex(bytes);
  return bytes;
}

/// What chooses among sample.candidates, by what was released beside the network.
void open_choice(const fs::path& folder, const Config& config, SamplingModel& model) {
  if (config.sample.candidates() == 1) return;
  const StageFacts& stage = config.feature_means.stage;
  const fs::path file = folder / stage.result;
  if (!fs::exists(file))
    throw UsageError(
        fmt::format("{} needs means of features to choose by, and '{}' is not there; train with "
                    "mechanism.stages.{}, or set {}=1",
                    place(config.sample.candidates), file.string(), stage.name,
                    config.sample.candidates.key()));
  FeatureMeans means = FeatureMeans::parse(choice_file(file, stage, model), file);
  const std::int64_t classes = std::max<std::int64_t>(model.num_classes, 1);
  if (means.means.size(0) != classes)
    throw UsageError(fmt::format(
        "'{}' has means of {} classes, and {} are to be drawn; set data.num_classes, or "
        "{}=1",
        file.string(), means.means.size(0), classes, config.sample.candidates.key()));
  std::optional<FeatureClassifier> classifier;
  const StageFacts& better = config.feature_classifier.stage;
  if (const fs::path there = folder / better.result; fs::exists(there))
    classifier = FeatureClassifier::parse(choice_file(there, better, model), there);
  auto network = make_feature_network(means.features, {.shape = model.shape, .weights = {}});
  model.choice = std::make_unique<CandidateChoice>(std::move(means), std::move(network),
                                                   std::move(classifier));
}

SamplingModel open_sampling_model(const ModelPlace& place, Config& config) {
  SamplingModel model;
  model.generator = open_generator(place.model, config, Placement{});
  validate(config);
  const GeneratorFacts facts = model.generator->facts();
  model.weights_sha256 = weights_sha256(facts.folder);
  model.config_sha256 = sha256_hex(read_file(facts.folder / "config.json"));
  model.card = card_for(place.model, model.weights_sha256);
  model.shape = shape_of(facts, model.card, config);
  find_classes(facts.class_rows, config, model);
  name_classes(config, model);
  if (model.num_classes > 0)
    model.class_proportions = proportions_in(place.model, config.label_histogram.stage, model.card);
  open_choice(place.model, config, model);
  // Hashes only: the name of a folder could tell of whom the images were, and who made the corpus.
  model.origin = {{"kind", place.run.empty() ? "model" : "run"},
                  {"weights_sha256", model.weights_sha256},
                  {"network_config_sha256", model.config_sha256}};
  for (const char* key : {"ledger_head_hash", "plan_hash", "data_manifest_hash"})
    if (model.card.contains(key) && model.card[key].is_string())
      model.origin[key] = model.card[key];
  return model;
}

std::unique_ptr<ImageSampler> sampler_of(const SamplingModel& model, const Config& config) {
  return model.generator->sampler(config, {model.shape, model.num_classes > 0, model.null_label});
}

bool takes_proportions(const CountOptions& options, std::span<const double> proportions) {
  return !proportions.empty() && !options.only_class && options.per_class.empty();
}

std::vector<int64_t> images_per_class(const CountOptions& options, int64_t num_classes,
                                      std::span<const double> proportions) {
  const int64_t classes = std::max<int64_t>(num_classes, 1);
  if (options.only_class && !options.per_class.empty())
    throw UsageError("--class and --per-class contradict each other; give one of them");
  if (!options.per_class.empty()) {
    if (std::ssize(options.per_class) != classes)
      throw UsageError(fmt::format("--per-class gives {} numbers for {} classes",
                                   options.per_class.size(), classes));
    if (std::ranges::any_of(options.per_class, [](int64_t n) { return n < 0; }))
      throw UsageError("--per-class takes numbers of images, 0 or more");
    const int64_t sum =
        std::accumulate(options.per_class.begin(), options.per_class.end(), int64_t{0});
    if (options.count && *options.count != sum)
      throw UsageError(fmt::format("--count {} contradicts --per-class, which adds up to {}",
                                   *options.count, sum));
    return options.per_class;
  }
  if (!options.count || *options.count < 1)
    throw UsageError("say how many images to draw: --count N with N >= 1, or --per-class a,b,...");
  std::vector<int64_t> counts(static_cast<std::size_t>(classes), 0);
  if (options.only_class) {
    if (num_classes == 0)
      throw UsageError("--class needs a network with classes; this one has none");
    if (*options.only_class < 0 || *options.only_class >= classes)
      throw UsageError(
          fmt::format("--class {} lies outside 0..{}", *options.only_class, classes - 1));
    counts[static_cast<std::size_t>(*options.only_class)] = *options.count;
    return counts;
  }
  if (takes_proportions(options, proportions)) {
    if (std::ssize(proportions) != classes)
      throw UsageError(
          fmt::format("label_histogram.json beside the network counts {} classes, and "
                      "{} are to be drawn; give --per-class",
                      proportions.size(), classes));
    return in_proportion(*options.count, without(proportions, options.left_out));
  }
  // Equal shares; the first classes get what does not divide.
  std::vector<int64_t> drawn;
  for (int64_t label = 0; label < classes; ++label)
    if (!is_left_out(options.left_out, label)) drawn.push_back(label);
  if (drawn.empty()) throw_all_left_out();
  const int64_t n = std::ssize(drawn);
  for (int64_t i = 0; i < n; ++i)
    counts[static_cast<std::size_t>(drawn[static_cast<std::size_t>(i)])] =
        *options.count / n + (i < *options.count % n ? 1 : 0);
  return counts;
}

}  // namespace sfumato
