#include "cli/lab/bench_case.h"

#include <fmt/format.h>

#include "cli/lab/bench_device.h"

namespace sfumato::cli {

void add_case_options(CLI::App& sub, CaseOptions& options, const std::string& none) {
  auto* network = sub.add_option(
      "--network", options.network,
      fmt::format("config.json or a folder with one (default: {}); of a GAN the discriminator's, "
                  "or a folder with both networks",
                  none));
  sub.add_option("--generator", options.generator,
                 "config.json of the generator whose fakes that discriminator sees")
      ->needs(network);
  sub.add_option("--case", options.case_name, "one built-in case")
      ->check(CLI::IsMember(step_case_names()))
      ->excludes(network);
  const auto positive = CLI::Range(std::int64_t{1}, std::int64_t{1'000'000});
  sub.add_option("--examples", options.examples, "physical batch (default: the case's, or 8)")
      ->check(positive);
  sub.add_option("--draws", options.draws,
                 "noise draws of each example; of a GAN its image and fakes (default: the case's)")
      ->check(positive);
  add_device_option(sub, options.device);
}

StepCase adjusted(StepCase step_case, const CaseOptions& options) {
  if (options.examples > 0) step_case.examples = options.examples;
  if (options.draws > 0) step_case.draws = options.draws;
  step_case.device = options.device;
  step_case.precision = options.precision;
  return step_case;
}

StepCase named_case(const CaseOptions& options) {
  return adjusted(options.network.empty() ? builtin_step_case(options.case_name)
                                          : step_case_from(options.network, options.generator),
                  options);
}

nlohmann::ordered_json timing_json(const Timing& timing) {
  return {{"min_s", timing.min}, {"median_s", timing.median}, {"max_s", timing.max}};
}

}  // namespace sfumato::cli
