#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "run/configuration_comparison.h"
#include "sfumato/config/paths.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/plural.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/dist/join_ranks.h"
#include "sfumato/dist/together.h"
#include "sfumato/generate/families.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/run/run_progress.h"
#include "sfumato/train/setup.h"
#include "sfumato/train/trainer.h"

namespace sfumato::cli {
namespace {

struct TrainArguments {
  ConfigOptions config;
  std::string resume;  ///< "", "true" (the flag alone) or "auto"
  bool resume_or_start = false;
  bool json = false;
};

/// What there is to do with run.dir.
enum class Course : std::int64_t { kStart, kResume, kFinished };

/// One command line begins a run, goes on with it and leaves it alone once it is finished. Of a
/// finished one a configuration that means another mechanism is refused, as of any other.
Course find_course(const Config& config) {
  const std::string& run = config.run.dir();
  if (!RunDirectory::holds_run(run)) return Course::kStart;
  if (!run_progress(run).finished) return Course::kResume;
  const std::optional<MechanismPlan> plan = plan_of_run(run);
  if (!plan) return Course::kFinished;
  const std::vector<std::string> differences = configuration_differences(config, *plan);
  if (!differences.empty())
    throw PrivacyError(fmt::format(
        "the run in '{}' is finished, and its mechanism was another one: {}; choose another "
        "run.dir for a new run",
        run, fmt::join(differences, "; ")));
  return Course::kFinished;
}

/// As if it had just been trained.
TrainResult result_of_finished(const std::string& run) {
  const RunDirectory directory = RunDirectory::look_at(run);
  const RunProgress progress = run_progress(run);
  const nlohmann::ordered_json card = read_privacy_card(directory.release() / "privacy_card.json");
  TrainResult result;
  result.steps = progress.checkpoints.back();
  result.charged = progress.charged_steps;
  result.epsilon = card["status"] == "private" ? card["epsilon"].get<double>()
                                               : std::numeric_limits<double>::infinity();
  result.release = directory.release();
  return result;
}

TrainResult train_or_find(const TrainArguments& arguments, Config& config,
                          const TrainOptions& options) {
  const bool automatic = arguments.resume == "auto" || arguments.resume_or_start;
  Course course = arguments.resume.empty() ? Course::kStart : Course::kResume;
  if (automatic) {
    // Of rank 0 it counts, whose run directory it is.
    on_leader_or_leave(*options.ranks, [&] { course = find_course(config); });
    course = Course(options.ranks->from_leader(static_cast<std::int64_t>(course)));
  }
  if (course != Course::kFinished) return train(config, course == Course::kResume, options);
  options.ranks->leave();
  if (!options.ranks->leads()) return {};
  log_info(
      fmt::format("the run in '{}' is finished: there is nothing left to do", config.run.dir()));
  return result_of_finished(config.run.dir());
}

void run(const TrainArguments& arguments) {
  const auto config = load(arguments.config);
  (void)family_of(*config);  // says what is wrong with model.family before any file is opened
  require_paths({&config->data.store, &config->model.init, &config->model.config,
                 &config->gan.generator_config, &config->gan.discriminator_config,
                 &config->embedding_warmup.generator_config, &config->semantic_query.public_store,
                 &config->semantic_query.weights});
  adopt_class_names(*config);
  install_stop_signals();
  TrainOptions options;
  options.ranks = join_ranks();
  show_gpu_of_rank(*options.ranks);
  if (!arguments.resume.empty() && arguments.resume != "true" && arguments.resume != "auto")
    throw UsageError(fmt::format("--resume={} is neither --resume nor --resume=auto",
                                 printable(arguments.resume)));
  const TrainResult result = train_or_find(arguments, *config, options);
  if (!options.ranks->leads()) return;
  const bool is_private = std::isfinite(result.epsilon);
  if (arguments.json) {
    nlohmann::ordered_json out{{"steps", result.steps}, {"charged_steps", result.charged}};
    out["epsilon"] = is_private ? nlohmann::ordered_json(result.epsilon) : nullptr;
    out["delta"] = config->mechanism.delta();
    out["release"] = result.release.string();
    std::cout << out.dump(2) << "\n";
    return;
  }
  if (is_private)
    fmt::print("trained {} under ({}, {})-differential privacy\n", counted(result.steps, "step"),
               epsilon_text(result.epsilon), config->mechanism.delta());
  else
    fmt::print("trained {}, NOT PRIVATE\n", counted(result.steps, "step"));
  if (result.release.empty())
    fmt::print(
        "a run of a private selection: nothing leaves until sfumato sweep names the winner\n");
  else
    fmt::print("release: {}\n", result.release.string());
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* sub = add_subcommand(app, "train");
  auto arguments = std::make_shared<TrainArguments>();
  add_config_options(*sub, arguments->config);
  CLI::Option* resume =
      sub->add_flag("--resume", arguments->resume,
                    "continue run.dir from its newest checkpoint; --resume=auto starts where there "
                    "is no run and leaves a finished one alone: one command line for all sessions");
  sub->add_flag("--resume-or-start", arguments->resume_or_start,
                "the same as --resume=auto, as older versions called it")
      ->excludes(resume);
  sub->add_flag("--json", arguments->json, "print the result as JSON");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
