#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cli/lab/audit_ranks.h"
#include "cli/lab/audit_report.h"
#include "cli/lab/audit_subcommands.h"
#include "cli/subcommands.h"
#include "sfumato/audit/conformance.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/dist/together.h"
#include "sfumato/mechanism/plan.h"

namespace sfumato::cli {
namespace {

struct AuditConformanceArguments {
  ConfigOptions config;
  ReportOptions report;
};

void audit_on(const std::shared_ptr<Communicator>& ranks,
              const AuditConformanceArguments& arguments) {
  const bool configured = !arguments.config.file.empty() || !arguments.config.overrides.empty();
  std::unique_ptr<Config> config;
  std::string claim = "the default";
  or_part(*ranks, [&] {
    everywhere(*ranks, [&] {
      if (!configured) return;
      config = load_for_audit(arguments.config, *ranks);
      claim = make_plan(*config, "one image", /*records_per_unit=*/1).to_json().dump();
    });
  });
  ranks->require_same("the mechanism", claim, "give all processes the same configuration");
  const ConformanceReport report =
      configured ? audit_conformance(*config, ranks)
                 : audit_conformance(default_audit_plan(), std::nullopt, ranks);
  or_part(*ranks, [&] {
    on_leader(*ranks, [&] {
      print_report(arguments.report, to_text(report), to_json(report));
      if (report.conforms()) return;
      std::string failures;
      for (const std::string& failure : report.failures()) failures += "\n  " + failure;
      throw PrivacyError("the mechanism contradicts its claim:" + failures);
    });
  });
}

void run(const AuditConformanceArguments& arguments) {
  if (arguments.report.json) set_quiet(true);
  with_ranks([&](const std::shared_ptr<Communicator>& ranks) { audit_on(ranks, arguments); });
}

}  // namespace

void add_audit_conformance(CLI::App& audit) {
  auto arguments = std::make_shared<AuditConformanceArguments>();
  CLI::App* sub = audit.add_subcommand(
      "conformance",
      "whether sampler, clipping, noise, divisor and ledger do what the accounting assumes; on "
      "synthetic inputs");
  add_report_options(*sub, arguments->report);
  add_config_options(*sub, arguments->config);
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
