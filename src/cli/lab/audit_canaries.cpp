#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/lab/audit_ranks.h"
#include "cli/lab/audit_report.h"
#include "cli/lab/audit_subcommands.h"
#include "cli/subcommands.h"
#include "sfumato/audit/canaries.h"
#include "sfumato/audit/conformance.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/dist/together.h"
#include "sfumato/mechanism/plan.h"

namespace sfumato::cli {
namespace {

struct AuditCanariesArguments {
  ConfigOptions config;
  std::string phase;
  std::optional<double> delta;
  CanaryOptions options;
  ReportOptions report;
};

MechanismPlan plan_of_phase(const std::string& text) {
  const Phase phase = parse_phase(text);
  check_phase(phase, Adjacency::kZeroOut);
  if (!(phase.sample_rate > 0) || !(phase.noise_multiplier > 0) || phase.steps < 1)
    throw UsageError(
        fmt::format("--phase {}: needs a sample rate, a noise multiplier and steps above 0", text));
  MechanismPlan plan = default_audit_plan();
  plan.sample_rate = phase.sample_rate;
  plan.noise_multiplier = phase.noise_multiplier;
  plan.steps = phase.steps;
  return plan;
}

MechanismPlan plan_of(const AuditCanariesArguments& arguments, const Communicator& ranks) {
  const bool configured = !arguments.config.file.empty() || !arguments.config.overrides.empty();
  if (configured == !arguments.phase.empty())
    throw UsageError("audit canaries: give either --config or --phase q:sigma:steps");
  if (!configured) return plan_of_phase(arguments.phase);
  const auto config = load_for_audit(arguments.config, ranks);
  return make_plan(*config);
}

void audit_on(const std::shared_ptr<Communicator>& ranks, const AuditCanariesArguments& arguments) {
  MechanismPlan plan;
  CanaryOptions options = arguments.options;
  or_part(*ranks, [&] {
    everywhere(*ranks, [&] {
      plan = plan_of(arguments, *ranks);
      options.delta =
          arguments.delta.value_or(arguments.phase.empty() ? plan.delta : options.delta);
      check_options(options);
    });
  });
  ranks->require_same("what is audited",
                      fmt::format("{} {} {} {}", plan.to_json().dump(), options.canaries,
                                  options.delta, options.confidence),
                      "give all processes the same configuration and options");
  const CanaryReport report = audit_canaries(plan, options, std::nullopt, ranks);
  or_part(*ranks, [&] {
    on_leader(*ranks, [&] {
      print_report(arguments.report, to_text(report), to_json(report));
      if (report.contradicts())
        throw PrivacyError(
            "the canaries contradict the claimed epsilon: do not release anything that this "
            "mechanism made; run `sfumato audit conformance --config FILE` to find out what is "
            "wrong");
    });
  });
}

void run(const AuditCanariesArguments& arguments) {
  if (arguments.report.json) set_quiet(true);
  with_ranks([&](const std::shared_ptr<Communicator>& ranks) { audit_on(ranks, arguments); });
}

}  // namespace

void add_audit_canaries(CLI::App& audit) {
  auto arguments = std::make_shared<AuditCanariesArguments>();
  CLI::App* sub = audit.add_subcommand(
      "canaries", "lower bounds on epsilon from planted gradients in a dry run of the mechanism");
  sub->add_option("--phase", arguments->phase, "sample_rate:noise_multiplier:steps to audit")
      ->type_name("q:sigma:steps");
  sub->add_option("--delta", arguments->delta,
                  "of the claim (default: the configuration's, else 1e-05)");
  sub->add_option("--canaries", arguments->options.canaries, "planted gradients")
      ->capture_default_str();
  sub->add_option("--confidence", arguments->options.confidence, "of the lower bounds")
      ->capture_default_str();
  add_report_options(*sub, arguments->report);
  add_config_options(*sub, arguments->config);
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
