#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace sfumato::cli {

/// What account and calibrate both take.
struct AccountingOptions {
  std::string accountant = "pld";
  std::string adjacency = "zero_out";
  std::int64_t records_per_unit = 1;
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
  sub.add_flag("--json", options.json, "print one JSON object");
}

}  // namespace sfumato::cli
