#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/bench/run_plan.h"
#include "sfumato/bench/step_cost.h"
#include "sfumato/config/paths.h"
#include "sfumato/config/training_cautions.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/device/threads.h"
#include "sfumato/generate/families.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/mechanism/stage.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

struct PlanArguments {
  ConfigOptions config;
  PublicSize size;
  std::vector<double> epsilons;
  std::string gpu;
  std::int64_t count = 1000;
  bool no_measure = false, json = false;
};

const char* word_for(Outlook outlook) {
  switch (outlook) {
    case Outlook::kNoise: return "noise";
    case Outlook::kUnknown: return "untried";
    case Outlook::kPictures: return "";
  }
  return "";
}

/// "2 h 5 min", "-" where it is not known.
std::string time_text(const StepCost& cost, const PlanRow& row) {
  const double seconds = cost.seconds_of(row.batch, row.steps);
  return seconds > 0 ? human_duration(seconds) : "-";
}

/// Whether a stage is made from what the run released.
bool comes_after(const StagePlan& stage) {
  return !stage.declared && find_stage(stage_table(), stage.name).when == StageTime::kAfterRelease;
}

void print_mechanism(const RunPlan& plan, const PlanArguments& arguments) {
  const MechanismPlan& m = plan.mechanism;
  fmt::print(
      "What `sfumato train` will do with this configuration. Nothing private was read.\n\n"
      "  protects    {}, {} adjacency; epsilon {} at delta {} ({} accountant)\n"
      "  steps       {} of about {:.6g} images (sample rate {:.7g}), noise multiplier {:.7g}, clip "
      "norm {:g}\n",
      m.unit, to_string(m.adjacency), epsilon_text(plan.epsilon), m.delta, to_string(m.accountant),
      m.steps, m.expected_batch_size, m.sample_rate, m.noise_multiplier, m.clip_norm_l2);
  for (const StagePlan& stage : m.stages)
    fmt::print("  {:<11} {}: {}\n", comes_after(stage) ? "after it" : "before it", stage.name,
               to_text(stage.event));
  if (arguments.size.records)
    fmt::print(
        "  written as  mechanism.sample_rate={} mechanism.steps={} "
        "mechanism.expected_batch_size={}\n"
        "              about {:.3g} epochs of {} images, on your word that this number is public\n",
        m.sample_rate, m.steps, m.expected_batch_size, m.sample_rate * static_cast<double>(m.steps),
        *arguments.size.records);
}

void print_cost(const StepCost& cost, const Config& config, const PlanArguments& arguments) {
  fmt::print("  trains      {} parameters\n", cost.trainable);
  if (cost.gpu)
    fmt::print("  memory      {} on one {}, PROJECTED: {} images at a time, bf16\n",
               human_bytes(cost.bytes), cost.gpu->name, cost.physical_batch);
  else if (cost.batches > 0)
    fmt::print(
        "  memory      {} of tensors, {} images at a time; times below from {} such on this "
        "machine\n",
        human_bytes(cost.bytes), cost.physical_batch, cost.batches);
  const auto side = static_cast<double>(config.data.image_size());
  fmt::print(
      "  a corpus    of {} images: at most {} (--count)\n", arguments.count,
      human_bytes(static_cast<double>(arguments.count * config.data.channels()) * side * side));
}

void print_rows(const RunPlan& plan, const StepCost& cost) {
  fmt::print("\n  {:>7} {:>8} {:>10} {:>8} {:>9} {:>9} {:>10}  {:>12}\n", "steps", "batch", "rate",
             "epsilon", "noise", "signal", "all steps", cost.gpu ? "projected" : "time");
  for (const PlanRow& row : plan.rows) {
    const auto number = [&](double value) {
      return row.noise_multiplier ? fmt::format("{:.3g}", value) : std::string("-");
    };
    fmt::print("{} {:>7} {:>8.6g} {:>10.4g} {:>8} {:>9} {:>9} {:>10}  {:>12}  {}\n",
               row.is_configured ? ">" : " ", row.steps, row.batch, row.sample_rate,
               epsilon_text(row.epsilon),
               row.noise_multiplier ? fmt::format("{:.4g}", *row.noise_multiplier) : "no noise",
               number(row.signal), number(row.total_signal), time_text(cost, row),
               row.noise_multiplier ? word_for(outlook_of(row.total_signal)) : "");
  }
  fmt::print(
      "\n> this configuration; the noise of other rows is an estimate.\n"
      "signal: batch / (noise sqrt(parameters)), what one step can hold of the images at most over "
      "its noise;\nall steps: times sqrt(steps). What that has meant here, on public images at "
      "epsilon 10:\n");
  for (const PublicResult& result : public_results())
    fmt::print("  {:>9.3g} {:>10.3g}  {}: {} x {}, {}\n", result.signal,
               signal_of_all(result.signal, result.steps), result.configuration, result.steps,
               result.batch, result.outcome);
  fmt::print("  (%: a classifier trained on the synthetic images, on real ones)\n");
}

void print_verdict(const RunPlan& plan) {
  const auto own = std::ranges::find_if(plan.rows, &PlanRow::is_configured);
  const Outlook outlook = outlook_of(own->total_signal);
  if (outlook == Outlook::kNoise)
    log_warning(fmt::format(
        "the pictures will be noise: {:.3g} over all steps, and public runs below 10 drew nothing "
        "that could be recognised. What helps, most first: more images in all (a batch is then a "
        "smaller share of them, which needs less noise), fewer parameters (a smaller network, or "
        "model.trainable on a pretrained one), a larger epsilon",
        own->total_signal));
  if (outlook == Outlook::kUnknown)
    log_warning(fmt::format(
        "{:.3g} over all steps lies between public runs that drew noise (up to 8.4) and those that "
        "drew pictures (from 32): try the same on public images of this size first",
        own->total_signal));
}

Json to_json(const RunPlan& plan, const StepCost& cost, double planned_s) {
  Json out{{"plan", plan.mechanism.to_json()},
           {"epsilon", plan.epsilon},
           {"trainable", plan.trainable},
           {"physical_batch", cost.physical_batch},
           {"peak_bytes", cost.bytes},
           {"projected_for", nullptr},
           {"image_s", cost.image_seconds},
           {"step_s", cost.step_seconds},
           {"planned_s", planned_s},
           {"measured_s", cost.measured_seconds},
           {"rows", Json::array()},
           {"public_results", Json::array()}};
  if (cost.gpu) out["projected_for"] = cost.gpu->name;
  for (const PlanRow& row : plan.rows) {
    const double seconds = cost.seconds_of(row.batch, row.steps);
    out["rows"].push_back(
        {{"steps", row.steps},
         {"batch", row.batch},
         {"sample_rate", row.sample_rate},
         {"epsilon", row.epsilon},
         {"noise_multiplier", row.noise_multiplier ? Json(*row.noise_multiplier) : Json(nullptr)},
         {"is_configured", row.is_configured},
         {"signal", row.signal},
         {"total_signal", row.total_signal},
         {"seconds", seconds > 0 ? Json(seconds) : Json(nullptr)},
         {"outlook",
          row.noise_multiplier ? word_for(outlook_of(row.total_signal)) : "unreachable"}});
  }
  for (const PublicResult& result : public_results())
    out["public_results"].push_back({{"configuration", result.configuration},
                                     {"steps", result.steps},
                                     {"batch", result.batch},
                                     {"signal", result.signal},
                                     {"outcome", result.outcome}});
  return out;
}

/// What cannot be met says what to change, in settings.
MechanismPlan plan_or_remedy(const Config& config) {
  try {
    return make_plan(config);
  } catch (const PrivacyError& error) {
    throw PrivacyError(fmt::format(
        "this plan cannot be met: {}. Before anything is spent, change one of: "
        "mechanism.target_epsilon, mechanism.delta, the noise of mechanism.stages.*, what "
        "mechanism.declared counts, or mechanism.candidates",
        error.what()));
  }
}

void run_plan(const PlanArguments& arguments) {
  if (arguments.json) set_quiet(true);
  if (arguments.config.file.empty() && arguments.config.overrides.empty())
    throw UsageError("plan: give --config FILE, or settings such as model.config=FILE");
  const auto begin = std::chrono::steady_clock::now();
  const auto config = load(arguments.config);
  require_paths({&config->model.init, &config->model.config, &config->gan.generator_config,
                 &config->gan.discriminator_config});
  adopt_pretrained_settings(*config);
  apply(arguments.size, *config);
  validate_for_training(*config);
  for (const std::string& caution : training_cautions(*config)) log_warning(caution);
  if (!config->privacy.enabled())
    throw UsageError("plan: privacy.enabled is false, so that there is no epsilon to plan");
  set_threads(config->performance.threads());
  const MechanismPlan mechanism = plan_or_remedy(*config);
  const StepCost cost =
      arguments.gpu.empty()
          ? measure_step(*config, mechanism,
                         arguments.no_measure ? CostBy::kNothing : CostBy::kMeasuring)
          : project_step_cost(*config, mechanism, limits_by_name(arguments.gpu));
  const RunPlan plan = plan_run(mechanism, cost.trainable, arguments.epsilons);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const double planned_s = took.count() - cost.measured_seconds;
  if (arguments.json) {
    fmt::print("{}\n", to_json(plan, cost, planned_s).dump(2));
    return;
  }
  print_mechanism(plan, arguments);
  print_cost(cost, *config, arguments);
  print_rows(plan, cost);
  fmt::print("planned in {:.1f} s", planned_s);
  if (cost.batches > 0) fmt::print(", measured for {:.1f} s", cost.measured_seconds);
  fmt::print("\n");
  std::fflush(stdout);
  print_verdict(plan);
}

}  // namespace

void add_plan(CLI::App& app) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* sub = add_subcommand(app, "plan");
  add_config_options(*sub, arguments->config);
  sub->add_option("--dataset-size", arguments->size.records,
                  "about how many images there are, a PUBLIC number: sets sample rate and divisor")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000'000}));
  sub->add_option("--epochs", arguments->size.epochs,
                  "how often each image joins a step on average: sets the steps")
      ->check(CLI::Range(1e-6, 1e9));
  sub->add_option("--epsilons", arguments->epsilons, "those of the table, such as 1,3,10")
      ->delimiter(',')
      ->check(CLI::Range(1e-6, 1e6));
  auto* gpu = sub->add_option("--gpu", arguments->gpu,
                              "project the time on this kind of GPU instead of measuring here");
  sub->add_option("--count", arguments->count, "images of the corpus")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000}))
      ->capture_default_str();
  sub->add_flag("--no-measure", arguments->no_measure, "leave times out")->excludes(gpu);
  sub->add_flag("--json", arguments->json, "print one JSON object");
  sub->callback([arguments] { run_plan(*arguments); });
}

}  // namespace sfumato::cli
