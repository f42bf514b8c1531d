#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/lab/enum_option.h"
#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/choices.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/record_store.h"
#include "sfumato/device/gpu.h"
#include "sfumato/device/threads.h"
#include "sfumato/evaluate/evaluation.h"
#include "sfumato/evaluate/evaluation_report.h"
#include "sfumato/evaluate/noisy_evaluation.h"
#include "sfumato/report/report_folder.h"

namespace sfumato::cli {
namespace {

namespace fs = std::filesystem;

struct EvaluateArguments {
  std::string corpus, corpus_labels, reference, reference_labels, test, test_labels, split, weights;
  std::vector<std::string> features, metrics, classifiers, files;
  int64_t count = 10000, threads = 0;
  DeviceChoice device = DeviceChoice::kCpu;
  bool no_classes = false, no_ceiling = false, is_public = false, json = false;
  std::string out, run;
  double expected_records = 0;
  CLI::Option* count_option = nullptr;
  EvaluationOptions options;
};

/// Where the pages go: a folder for the holder's eyes, or any where the reference is public or the
/// numbers are noisy.
class Pages {
 public:
  /// Refuses the place before anything is computed.
  explicit Pages(const EvaluateArguments& arguments) {
    if (arguments.options.status == ReferenceStatus::kPrivate) {
      const fs::path reference =
          arguments.files.empty() ? fs::path(arguments.reference) : fs::path(arguments.files[1]);
      private_.emplace(arguments.out.empty() ? ReportFolder::usual({}, reference, "evaluation")
                                             : fs::path(arguments.out));
      path_ = private_->path();
    } else if (!arguments.out.empty()) {
      path_ = arguments.out;
      make_folder(path_);
    }
  }

  void write(const std::string& name, const std::string& text) const {
    if (private_)
      private_->write(name, text);
    else if (!path_.empty())
      write_file_atomic(path_ / name, text);
  }
  /// Empty: nothing is written.
  const fs::path& path() const { return path_; }

 private:
  std::optional<ReportFolder> private_;
  fs::path path_;
};

void write_pages(const EvaluateArguments& arguments, const Evaluation& evaluation,
                 const ReportedSet& corpus, const ReportedSet& reference,
                 const EvaluationPictures& pictures, const Pages& pages) {
  nlohmann::ordered_json json = to_json(evaluation, corpus, reference);
  const std::string text = evaluation_markdown(evaluation, corpus, reference);
  if (!pages.path().empty()) json["report"] = (pages.path() / "evaluation.html").string();
  pages.write("evaluation.json", json.dump(2) + "\n");
  pages.write("evaluation.md", text);
  pages.write("evaluation.html", evaluation_html(evaluation, corpus, reference, pictures));
  if (arguments.json) {
    std::cout << json.dump(2) << "\n";
    return;
  }
  fmt::print("{}", text);
  if (!pages.path().empty())
    fmt::print("\npages: {}\n", (pages.path() / "evaluation.html").string());
}

void evaluate_files(const EvaluateArguments& arguments, const Pages& pages) {
  const FeatureSet corpus = read_features(arguments.files[0]);
  const FeatureSet reference = read_features(arguments.files[1]);
  const std::string split = arguments.split.empty() ? "not said" : arguments.split;
  EvaluationOptions options = arguments.options;
  options.networks = {corpus.facts.network};
  const Evaluation evaluation = evaluate_features(corpus, reference, split, options);
  const auto described = [&](const FeatureSet& set, const std::string& file) {
    ReportedSet out;
    out.name = fs::path(file).filename().string();
    out.identity = "features of a file";
    out.split = split;
    out.found = out.used = set.count();
    return out;
  };
  write_pages(arguments, evaluation, described(corpus, arguments.files[0]),
              described(reference, arguments.files[1]), {}, pages);
}

/// Of a record store the images that training never read, where `prepare` held some out; else "".
/// They are private, whatever is said of the reference.
std::string held_out_of(const fs::path& reference) {
  const auto place = held_out_beside(reference);
  if (!place) return {};
  check_holdout_of(RecordStore::open(reference), RecordStore::open(*place));
  log_info(fmt::format("classifiers are tested on held-out images: '{}'", place->string()));
  return place->string();
}

void evaluate_images(const EvaluateArguments& arguments, const Pages& pages) {
  const auto request = [&](const std::string& path, const std::string& labels,
                           const std::string& option) {
    SetRequest out;
    out.path = path;
    out.option = option;
    out.labels = labels;
    out.with_classes = !arguments.no_classes;
    out.count = arguments.count;
    out.seed = arguments.options.seed;
    return out;
  };
  SetRequest of_reference = request(arguments.reference, arguments.reference_labels, "reference");
  of_reference.split = arguments.split;
  const ImageSets sets =
      open_image_sets(request(arguments.corpus, arguments.corpus_labels, "corpus"), of_reference);
  const std::string held_out = arguments.test.empty() && !arguments.is_public
                                   ? held_out_of(arguments.reference)
                                   : arguments.test;
  std::optional<ImageSet> test;
  if (!held_out.empty())
    test = open_test_set(request(held_out, arguments.test_labels, "test"), sets.reference);
  const Evaluation evaluation = evaluate(sets, test ? &*test : nullptr, arguments.options);
  write_pages(arguments, evaluation, reported(sets.corpus), reported(sets.reference),
              evaluation_pictures(sets, evaluation, true), pages);
}

/// What the mechanism of a run has planned of it, once.
void evaluate_and_release(const EvaluateArguments& arguments, const Pages& pages) {
  NoisyEvaluationRequest request;
  request.run = arguments.run;
  request.corpus.path = arguments.corpus;
  request.corpus.labels = arguments.corpus_labels;
  request.corpus.option = "corpus";
  request.corpus.count = arguments.count_option->count() > 0 ? arguments.count : 0;
  request.corpus.seed = arguments.options.seed;
  request.reference = arguments.reference;
  request.options = arguments.options;
  request.expected_records = arguments.expected_records;
  const NoisyEvaluation found = evaluate_with_noise(request);
  for (const fs::path& file : found.files)
    log_info(fmt::format("{}: '{}'", found.made_before ? "released before" : "in the release",
                         file.string()));
  write_pages(arguments, found.evaluation, found.corpus, found.reference, {}, pages);
}

void check_arguments(EvaluateArguments& arguments) {
  const bool of_files = !arguments.files.empty();
  if (of_files && (!arguments.corpus.empty() || !arguments.reference.empty()))
    throw UsageError(
        "--features-of takes the place of CORPUS and --reference; name one or the other");
  if (!of_files && (arguments.corpus.empty() || arguments.reference.empty()))
    throw UsageError(
        "name a CORPUS and real images with --reference DATA, or two files with "
        "--features-of");
  if (!arguments.features.empty()) arguments.options.networks = arguments.features;
  arguments.options.metrics = metrics_of(arguments.metrics, arguments.options.networks);
  if (!arguments.classifiers.empty())
    arguments.options.classifiers = classifiers_of(arguments.classifiers);
  arguments.options.weights = arguments.weights;
  arguments.options.ceiling = !arguments.no_ceiling;
  if (arguments.is_public) arguments.options.status = ReferenceStatus::kDeclaredPublic;
  if (!arguments.run.empty()) arguments.options.status = ReferenceStatus::kReleasedWithNoise;
}

void run_evaluate(EvaluateArguments& arguments) {
  if (arguments.json) set_quiet(true);
  check_arguments(arguments);
  set_threads(arguments.threads);
  arguments.options.classifier.device = open_device(chosen_device(arguments.device));
  install_stop_signals();
  const Pages pages(arguments);
  if (!arguments.run.empty())
    evaluate_and_release(arguments, pages);
  else if (arguments.files.empty())
    evaluate_images(arguments, pages);
  else
    evaluate_files(arguments, pages);
}

void add_sets(CLI::App& sub, EvaluateArguments& arguments) {
  sub.add_option(
         "corpus", arguments.corpus,
         "folder or shards that sample wrote, or images as prepare and other programs' .npz "
         "have them")
      ->type_name("CORPUS");
  sub.add_option("--reference", arguments.reference,
                 "real images: a record store, or anything that prepare reads")
      ->type_name("DATA");
  sub.add_option(
         "--test", arguments.test,
         "real images that test classifiers (default: those that prepare held out of a record "
         "store, data.holdout; else a sixth of the reference, set apart)")
      ->type_name("DATA");
  sub.add_option("--corpus-labels", arguments.corpus_labels, "labels of IDX or .npy images")
      ->type_name("FILE");
  sub.add_option("--reference-labels", arguments.reference_labels, "the same of the reference")
      ->type_name("FILE");
  sub.add_option("--test-labels", arguments.test_labels, "the same of --test")->type_name("FILE");
  sub.add_option("--split", arguments.split,
                 "what the reference is: train, test, holdout (default: as its path says)")
      ->type_name("NAME");
  sub.add_flag("--no-classes", arguments.no_classes, "do not read labels");
  sub.add_option("--features-of", arguments.files,
                 "features [N, d] of both sides instead of images, .npy or .safetensors")
      ->expected(2)
      ->type_name("CORPUS REFERENCE");
}

/// The third of what may be done with numbers of private images.
void add_release_with_noise(CLI::App& sub, EvaluateArguments& arguments) {
  CLI::Option* run =
      sub.add_option(
             "--release-with-noise", arguments.run,
             "release accuracy and Frechet distance with noise, each once, as the mechanism of RUN "
             "has planned them (mechanism.stages.accuracy, frechet_distance; --metrics for one of "
             "them): CORPUS is drawn from its release, --reference its record store or what "
             "prepare held out of it; the pages may lie anywhere")
          ->type_name("RUN");
  for (const char* other :
       {"--reference-is-public", "--features-of", "--features", "--test", "--test-labels",
        "--reference-labels", "--split", "--no-classes", "--no-ceiling", "--device"})
    run->excludes(sub.get_option(other));
  sub.add_option("--expected-records", arguments.expected_records,
                 "public number that the noisy sums are divided by (default: as expected_records "
                 "of the stages of RUN says)")
      ->check(CLI::PositiveNumber)
      ->needs(run)
      ->type_name("N");
}

}  // namespace

void add_evaluate(CLI::App& app) {
  CLI::App* sub = add_subcommand(app, "evaluate");
  auto arguments = std::make_shared<EvaluateArguments>();
  add_sets(*sub, *arguments);
  sub->add_option("--features", arguments->features,
                  fmt::format("networks whose features are compared (default: convolution): {}",
                              fmt::join(feature_network_names(), ", ")))
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("a,b");
  sub->add_option("--weights", arguments->weights,
                  "file of weights, of the one of these networks that takes any")
      ->type_name("FILE");
  sub->add_option(
         "--metrics", arguments->metrics,
         fmt::format("what to measure (default: all): {}", fmt::join(names_of<Metric>(), ", ")))
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("a,b");
  arguments->count_option =
      sub->add_option("--count", arguments->count,
                      "images of each side, chosen at random; 0: all (with --release-with-noise of "
                      "the corpus, by default all)")
          ->capture_default_str()
          ->type_name("N");
  sub->add_option("--classifier", arguments->classifiers,
                  fmt::format("networks that are trained for accuracy (default: small): {}; those "
                              "but small take hours on few cores",
                              fmt::join(names_of<ClassifierKind>(), ", ")))
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("a,b");
  sub->add_option("--repeats", arguments->options.repeats, "trainings of each classifier")
      ->capture_default_str()
      ->type_name("N");
  sub->add_flag(
      "--no-ceiling", arguments->no_ceiling,
      "train no classifiers on real images: half the time, and neither the ceiling of the "
      "accuracy nor label fidelity");
  add_enum_option(*sub, "--device", arguments->device,
                  "where classifiers are trained; everything else is computed on the CPU");
  sub->add_option("--threads", arguments->threads, "0: all cores")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->type_name("N");
  sub->add_option("--seed", arguments->options.seed, "of choices and of training")
      // As many as numpy's generator, which draws the choices, tells apart.
      ->check(CLI::Range(int64_t{0}, int64_t{0xffffffff}))
      ->capture_default_str();
  sub->add_flag("--reference-is-public", arguments->is_public,
                "reference and test images are public: the pages may lie anywhere");
  add_release_with_noise(*sub, *arguments);
  sub->add_option("--out", arguments->out,
                  "folder for the pages (default: REFERENCE-evaluation, which is closed to others; "
                  "none where the reference is public or the numbers are noisy)")
      ->type_name("FOLDER");
  sub->add_flag("--json", arguments->json, "print the result as JSON");
  sub->callback([arguments] { run_evaluate(*arguments); });
}

}  // namespace sfumato::cli
