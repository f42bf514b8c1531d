#include "sfumato/privacy/calibrate.h"

#include <fmt/format.h>

#include <memory>
#include <optional>

#include "cli/light/accounting_options.h"
#include "cli/light/privacy_text.h"
#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"

namespace sfumato::cli {
namespace {

struct CalibrateOptions : AccountingOptions {
  double target_epsilon = 0, delta = 0;
  std::optional<double> sample_rate, noise_multiplier;
  std::optional<std::int64_t> steps;
  std::vector<std::string> spent;
};

Calibration solve(const CalibrateOptions& options, const CalibrationTarget& target) {
  if (!options.noise_multiplier)
    return calibrate_noise_multiplier(target, *options.sample_rate, *options.steps);
  if (!options.steps)
    return calibrate_steps(target, *options.sample_rate, *options.noise_multiplier);
  return calibrate_sample_rate(target, *options.noise_multiplier, *options.steps);
}

std::string found_text(const CalibrateOptions& options, const Phase& phase) {
  if (!options.noise_multiplier) return fmt::format("noise multiplier {}", phase.noise_multiplier);
  if (!options.steps) return fmt::format("{} steps", phase.steps);
  return fmt::format("sample rate {}", phase.sample_rate);
}

void print_json(const CalibrationTarget& target, const Calibration& found) {
  nlohmann::ordered_json json;
  json["sample_rate"] = found.phase.sample_rate;
  json["noise_multiplier"] = found.phase.noise_multiplier;
  json["steps"] = found.phase.steps;
  json["target_epsilon"] = target.epsilon;
  json.update(to_json(found.statement));
  if (target.selection) json["selection"] = selection_json(*target.selection);
  fmt::print("{}\n", json.dump());
}

CalibrationTarget target_of(const CalibrateOptions& options) {
  CalibrationTarget target{options.target_epsilon, options.delta};
  target.accountant = parse_enum<Accountant>(options.accountant);
  target.adjacency = parse_enum<Adjacency>(options.adjacency);
  target.records_per_unit = options.records_per_unit;
  target.selection = selection_of(options);
  target.spent = parse_events("--spent", options.spent, target.adjacency, options.records_per_unit);
  return target;
}

/// What is left for one more stage, given --spent alone.
void run_remaining(const CalibrateOptions& options) {
  const CalibrationTarget target = target_of(options);
  const double left = calibrate_remaining_epsilon(target);
  if (options.json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"remaining_epsilon", left},
                                              {"target_epsilon", target.epsilon},
                                              {"delta", target.delta}}
                           .dump());
  } else {
    fmt::print(
        "{} is left for one more stage (epsilon at delta 0, on top of what is spent); the "
        "target is {} at delta {}.\n",
        lower_bound_text(left, 7), target.epsilon, target.delta);
  }
}

void run_calibrate(const CalibrateOptions& options) {
  const int given = options.sample_rate.has_value() + options.noise_multiplier.has_value() +
                    options.steps.has_value();
  if (given == 0 && !options.spent.empty()) return run_remaining(options);
  if (given != 2)
    throw UsageError(fmt::format(
        "calibrate: give exactly two of --sample-rate, --steps, "
        "--noise-multiplier ({} given); the third is the answer. --spent alone tells what "
        "epsilon is left",
        given));
  const CalibrationTarget target = target_of(options);
  const Calibration found = solve(options, target);
  if (options.json) return print_json(target, found);
  std::vector<PrivacyEvent> events = target.spent;
  events.push_back(found.phase);
  fmt::print("{} gives {}; the target is {}.\n{}{}", found_text(options, found.phase),
             to_text(found.statement), target.epsilon,
             target.selection ? selection_text(*target.selection) : "",
             event_table(events, found.statement, target.selection.has_value()));
}

}  // namespace

void add_calibrate(CLI::App& app) {
  auto options = std::make_shared<CalibrateOptions>();
  CLI::App* sub = add_subcommand(app, "calibrate");
  sub->add_option("--target-epsilon", options->target_epsilon, "epsilon not to exceed")->required();
  sub->add_option("--delta", options->delta, "delta of the statement")->required();
  sub->add_option("--sample-rate", options->sample_rate,
                  "probability with which a record joins a step");
  sub->add_option("--steps", options->steps, "number of steps");
  sub->add_option("--noise-multiplier", options->noise_multiplier,
                  "noise standard deviation over the clip norm");
  sub->add_option(
      "--spent", options->spent,
      "what counts towards the target too, in the forms of account --phase; repeatable");
  add_accounting_options(*sub, *options);
  sub->callback([options] { run_calibrate(*options); });
}

}  // namespace sfumato::cli
