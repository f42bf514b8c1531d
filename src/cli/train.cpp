#include <fmt/format.h>

#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/config/paths.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/plural.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/dist/join_ranks.h"
#include "sfumato/generate/families.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/train/setup.h"
#include "sfumato/train/trainer.h"

namespace sfumato::cli {
namespace {

struct TrainArguments {
  ConfigOptions config;
  bool resume = false;
  bool resume_or_start = false;
  bool json = false;
};

void run(const TrainArguments& arguments) {
  const auto config = load(arguments.config);
  (void)family_of(*config);  // says what is wrong with model.family before any file is opened
  require_paths({&config->data.store, &config->model.init, &config->model.config,
                 &config->gan.generator_config, &config->gan.discriminator_config});
  adopt_class_names(*config);
  install_stop_signals();
  TrainOptions options;
  options.ranks = join_ranks();
  show_gpu_of_rank(*options.ranks);
  // Of rank 0 it counts, whose run directory it is.
  const bool resume = arguments.resume || (arguments.resume_or_start && options.ranks->leads() &&
                                           RunDirectory::holds_run(config->run.dir()));
  const TrainResult result = train(*config, resume, options);
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
               upper_bound_text(result.epsilon), config->mechanism.delta());
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
      sub->add_flag("--resume", arguments->resume, "continue run.dir from its newest checkpoint");
  sub->add_flag("--resume-or-start", arguments->resume_or_start,
                "the same if run.dir holds a run, else start one: for jobs that are started anew")
      ->excludes(resume);
  sub->add_flag("--json", arguments->json, "print the result as JSON");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
