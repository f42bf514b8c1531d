#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <thread>

#include "cli/light/account_card.h"
#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/core/text.h"
#include "sfumato/corpus/generate_corpus.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/device/threads.h"
#include "sfumato/dist/join_ranks.h"
#include "sfumato/dist/together.h"
#include "sfumato/generate/placement.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/report/progress.h"
#include "sfumato/run/card_alone.h"
#include "sfumato/run/run_verification.h"
#include "sfumato/run/selection_mark.h"
#include "sfumato/train/step_release.h"

namespace sfumato::cli {
namespace {

struct SampleArguments {
  std::string source;
  std::string out;
  CountOptions counts;
  ConfigOptions config;
  bool json = false;
};

/// Everything that decides the pixels; what is in here must not change while a corpus is made.
nlohmann::ordered_json pixel_settings(const Config& config, const SamplingModel& model,
                                      const ImageSampler& sampler) {
  nlohmann::ordered_json settings{{"weights_sha256", model.weights_sha256},
                                  {"network_config_sha256", model.config_sha256}};
  const nlohmann::ordered_json own = sampler.settings();
  for (const auto& [key, value] : own.items()) {
    if (settings.contains(key)) throw std::logic_error("a sampler's setting is called " + key);
    settings[key] = value;
  }
  settings["num_classes"] = model.num_classes;
  settings["seed"] = config.sample.seed();
  if (model.choice != nullptr) {
    settings["candidates"] = config.sample.candidates();
    settings.update(model.choice_files);
  }
  // For who would draw the same with the scheduler above.
  if (const std::string note = sampler.note(); !note.empty()) settings["scheduler_note"] = note;
  return settings;
}

/// Draws what is missing, with a progress line; returns images per second of this call.
double draw(Communicator& ranks, CorpusWriter* writer, const CorpusSource& source, bool quiet) {
  Progress progress(std::cerr, isatty(STDERR_FILENO) != 0, 10);
  const auto start = std::chrono::steady_clock::now();
  double rate = 0;
  generate_corpus(ranks, writer, source, [&](double done, int64_t drawn) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    rate = static_cast<double>(drawn) / static_cast<double>(source.candidates) / elapsed.count();
    ProgressState state;
    state.step = static_cast<int64_t>(done);
    state.total = writer->total();
    state.items_per_s = rate;
    state.seconds_left = (static_cast<double>(writer->total()) - done) / rate;
    if (!quiet) progress.update(state);
  });
  if (!quiet && writer != nullptr) progress.finish();
  return rate;
}

void print_result(const SampleArguments& arguments, const CorpusWriter& writer,
                  const nlohmann::ordered_json& card, double images_per_s) {
  const std::filesystem::path folder = writer.spec().folder;
  const CardBanner banner = card_banner(card);
  if (arguments.json) {
    const auto field = [&](const char* key) {
      return card.contains(key) ? card[key] : nlohmann::ordered_json();
    };
    nlohmann::ordered_json out{{"corpus", folder.string()},
                               {"contact_sheet", (folder / kContactSheet).string()},
                               {"report", (folder / "report.html").string()},
                               {"images", writer.total()},
                               {"images_per_class", writer.spec().images_per_class},
                               {"images_per_s", images_per_s},
                               {"status", field("status")},
                               {"epsilon", field("epsilon")},
                               {"delta", field("delta")}};
    std::cout << out.dump(2) << "\n";
    return;
  }
  if (banner.banner == ReportBanner::kNotPrivate) log_warning("NOT PRIVATE: " + banner.headline);
  if (banner.banner == ReportBanner::kNoClaim) log_info(banner.headline);
  if (banner.banner == ReportBanner::kVoid) log_warning("VOID: " + banner.headline);
  if (banner.banner == ReportBanner::kPrivate) fmt::print("{}\n", banner.headline);
  fmt::print("corpus: {} ({} images)\ncontact sheet: {}\nreport: {}\n", folder.string(),
             writer.total(), (folder / kContactSheet).string(), (folder / "report.html").string());
}

/// Classes that are left out, or drawn because they were asked for, though the network may have
/// seen no image of them.
void say_what_was_not_trained(const CorpusSpec& spec, const SamplingModel& model) {
  std::vector<std::string> drawn, left_out;
  for (std::size_t label = 0; label < model.may_be_untrained.size(); ++label)
    if (model.may_be_untrained[label])
      (spec.images_per_class[label] > 0 ? drawn : left_out)
          .push_back(fmt::format("{} '{}'", label, model.class_names[label]));
  if (!left_out.empty())
    log_info(
        fmt::format("left out, because it may have been trained on no image: class {}; "
                    "--per-class or --class draws it all the same",
                    fmt::join(left_out, ", ")));
  if (!drawn.empty())
    log_warning(fmt::format(
        "drawn, though the network may have seen no image of it: class {}; README.md says so",
        fmt::join(drawn, ", ")));
  if (model.any_may_be_untrained)
    log_warning(
        "the run allowed any class to be without images (data.allow_empty_classes=*): classes that "
        "are drawn may never have been trained, and which is not known here");
}

/// What the images are drawn with is as private as its ledger proves, whatever its card says; of a
/// release that was shared without its ledger, as what the card itself counts.
void check_claim(const ModelPlace& place, SamplingModel& model) {
  if (model.card["status"] != "private") return;
  if (place.run.empty() || !std::filesystem::exists(place.run / "ledger.jsonl")) {
    const std::string file = (place.model / "privacy_card.json").string();
    const std::string found = card_defect(file, model.card);
    if (found.empty()) return;
    log_warning(found);
    model.card =
        voided(without_claim(model.card), "the card claims more than the stages on it prove");
    return;
  }
  RunVerificationOptions options;
  options.run = place.run;
  options.release_only = true;
  const std::vector<std::string> problems = verify_run(options).problems();
  if (problems.empty()) return;
  log_warning(fmt::format("the run's ledger does not prove what its privacy card says:\n  {}",
                          fmt::join(problems, "\n  ")));
  model.card =
      voided(without_claim(model.card), "the ledger of the run does not prove what its card says");
}

/// What rank 0 does before the first image: what the corpus is to be, and what is said of it.
std::unique_ptr<CorpusWriter> open_corpus(SampleArguments& arguments, const Config& config,
                                          const ModelPlace& place, SamplingModel& model,
                                          const ImageSampler& sampler) {
  check_claim(place, model);
  if (const std::string caution = sampler.caution(); !caution.empty()) log_warning(caution);
  CorpusSpec spec;
  spec.folder = arguments.out;
  spec.format = config.sample.format();
  arguments.counts.left_out = model.may_be_untrained;
  spec.images_per_class =
      images_per_class(arguments.counts, model.num_classes, model.class_proportions);
  spec.class_names = model.class_names;
  spec.may_be_untrained = model.may_be_untrained;
  say_what_was_not_trained(spec, model);
  spec.noisy_proportions = takes_proportions(arguments.counts, model.class_proportions);
  spec.candidates = config.sample.candidates();
  spec.shape = model.shape;
  spec.settings = pixel_settings(config, model, sampler);
  auto writer = std::make_unique<CorpusWriter>(std::move(spec));
  if (writer->done() > 0)
    log_info(fmt::format("continuing: {} of {} images are there", writer->done(), writer->total()));
  return writer;
}

/// Of RUN@STEP: where the checkpoint is released to for this.
ModelPlace place_of_step(const std::filesystem::path& run, std::int64_t step) {
  ModelPlace place;
  place.model = run / "private" / "sampled" / fmt::format("step_{:06}", step);
  place.config_file = run / "config.yaml";
  return place;
}

void release_for_sampling(const std::filesystem::path& run, std::int64_t step,
                          const std::filesystem::path& folder) {
  if (release_step(run, step, folder)["status"] == "private")
    log_info(
        fmt::format("the weights after step {} are claimed at the epsilon of the whole plan: that "
                    "covers a choice of the step by pictures, and none by losses or other private "
                    "numbers",
                    step));
}

void run(SampleArguments& arguments) {
  check_may_leave(arguments.source, arguments.out);
  const auto at = run_at_step(arguments.source);
  const ModelPlace place = at ? place_of_step(at->first, at->second) : find_model(arguments.source);
  if (arguments.config.file.empty()) arguments.config.file = place.config_file.string();
  const auto config = load(arguments.config);
  const std::shared_ptr<Communicator> ranks = join_ranks();
  if (at)
    on_leader_or_leave(*ranks, [&] { release_for_sampling(at->first, at->second, place.model); });
  show_gpu_of_rank(*ranks);
  set_threads(
      threads_of_rank(config->performance.threads(), std::thread::hardware_concurrency(), *ranks));
  SamplingModel model = open_sampling_model(place, *config);
  // Now, because a GPU takes seconds to open: what cannot be drawn from is refused at once.
  model.generator->move_to(open_placement(config->performance));
  if (ranks->leads()) log_info(fmt::format("drawing {}", device_text(config->performance)));
  const std::unique_ptr<ImageSampler> sampler = sampler_of(model, *config);
  ranks->require_same("what is drawn", pixel_settings(*config, model, *sampler).dump(),
                      "give all processes the same model and sample.*");
  std::unique_ptr<CorpusWriter> writer;
  on_leader_or_leave(*ranks,
                     [&] { writer = open_corpus(arguments, *config, place, model, *sampler); });

  const CorpusSource source{sampler.get(), config->sample.batch(), model.shape,
                            config->sample.candidates(), model.choice.get()};
  install_stop_signals();
  const double images_per_s = draw(*ranks, writer.get(), source, arguments.json);
  on_leader_or_leave(*ranks, [&] {
    writer->finish(model.card, model.origin);
    print_result(arguments, *writer, model.card, images_per_s);
  });
  ranks->leave();
}

}  // namespace

void add_sample(CLI::App& app) {
  CLI::App* sub = add_subcommand(app, "sample");
  auto arguments = std::make_shared<SampleArguments>();
  sub->add_option(
         "source", arguments->source,
         "run directory, RUN@STEP for the weights of one of its checkpoints, or folder with a "
         "diffusers model")
      ->required()
      ->type_name("RUN_OR_MODEL");
  sub->add_option("--out", arguments->out, "folder for the corpus; an unfinished one is continued")
      ->required()
      ->type_name("DIR");
  sub->add_option("--count", arguments->counts.count,
                  "images in all: in the proportions of the run's noisy label histogram if it "
                  "released one, else spread evenly over classes")
      ->type_name("N");
  sub->add_option("--per-class", arguments->counts.per_class, "images of each class")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("a,b,c");
  sub->add_option("--class", arguments->counts.only_class, "draw this class only")->type_name("C");
  sub->add_flag("--json", arguments->json, "print the result as JSON");
  add_config_options(*sub, arguments->config);
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
