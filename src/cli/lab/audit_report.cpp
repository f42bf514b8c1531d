#include "cli/lab/audit_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/io/json_file.h"

namespace sfumato::cli {

void add_report_options(CLI::App& subcommand, ReportOptions& options) {
  subcommand.add_flag("--json", options.json, "print one JSON object");
  subcommand.add_option("--out", options.out, "file to write the JSON object to as well")
      ->type_name("FILE");
}

void print_report(const ReportOptions& options, const std::string& text,
                  const nlohmann::ordered_json& json) {
  if (options.json) {
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print("{}", text);
  }
  if (!options.out.empty()) write_json_atomic(options.out, json);
}

}  // namespace sfumato::cli
