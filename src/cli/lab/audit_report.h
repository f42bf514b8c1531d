#pragma once
#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace sfumato::cli {

/// Where the report of an audit on synthetic data goes.
struct ReportOptions {
  bool json = false;
  std::string out;
};
void add_report_options(CLI::App& subcommand, ReportOptions& options);
/// The text, or with --json the object, on stdout; the object in --out as well.
void print_report(const ReportOptions& options, const std::string& text,
                  const nlohmann::ordered_json& json);

}  // namespace sfumato::cli
