#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "sfumato/privacy/selection.h"

namespace sfumato::cli {

/// What account and calibrate both take.
struct AccountingOptions {
  std::string accountant = "pld";
  std::string adjacency = "zero_out";
  std::int64_t records_per_unit = 1;
  std::string selection;
  bool json = false;
};

/// `options` must live until the command line is parsed.
inline void add_accounting_options(CLI::App& sub, AccountingOptions& options) {
  sub.add_option("--accountant", options.accountant, "pld or rdp")->capture_default_str();
  sub.add_option("--adjacency", options.adjacency, "add_remove, zero_out or replace_one")
      ->capture_default_str();
  sub.add_option("--records-per-unit", options.records_per_unit,
                 "most records that one user owns, if the user is the unit of privacy")
      ->capture_default_str();
  sub.add_option("--selection", options.selection,
                 "the best of a random number of such runs leaves, and nothing of the others: "
                 "logarithmic:RUNS, geometric:RUNS or negative_binomial:ETA:RUNS, with RUNS on "
                 "average; epsilon is then that of the whole selection");
  sub.add_flag("--json", options.json, "print one JSON object");
}

/// None where the option is not given; UsageError as parse_selection.
inline std::optional<Selection> selection_of(const AccountingOptions& options) {
  if (options.selection.empty()) return std::nullopt;
  return parse_selection(options.selection);
}

}  // namespace sfumato::cli
