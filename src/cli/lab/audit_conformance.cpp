#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/lab/audit_report.h"
#include "cli/lab/audit_subcommands.h"
#include "cli/subcommands.h"
#include "sfumato/audit/conformance.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/device/threads.h"
#include "sfumato/generate/families.h"
#include "sfumato/train/setup.h"

namespace sfumato::cli {
namespace {

struct Arguments {
  ConfigOptions config;
  ReportOptions report;
};

void run(const Arguments& arguments) {
  if (arguments.report.json) set_quiet(true);
  const bool configured = !arguments.config.file.empty() || !arguments.config.overrides.empty();
  ConformanceReport report;
  if (configured) {
    const auto config = load(arguments.config);
    adopt_pretrained_settings(*config);
    validate(*config);
    set_threads(config->performance.threads());
    report = audit_conformance(*config);
  } else {
    report = audit_conformance(default_audit_plan());
  }
  print_report(arguments.report, to_text(report), to_json(report));
  if (report.conforms()) return;
  std::string failures;
  for (const std::string& failure : report.failures()) failures += "\n  " + failure;
  throw PrivacyError("the mechanism contradicts its claim:" + failures);
}

}  // namespace

void add_audit_conformance(CLI::App& audit) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = audit.add_subcommand(
      "conformance",
      "whether sampler, clipping, noise, divisor and ledger do what the accounting assumes; on "
      "synthetic inputs");
  add_report_options(*sub, arguments->report);
  add_config_options(*sub, arguments->config);
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
