#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "sfumato/config/config.h"

namespace sfumato::cli {

// One file per subcommand; each adds itself to `app` with a callback that does the work and throws
// sfumato::Error. light/program.cpp turns errors into exit statuses.
void add_init(CLI::App& app);
void add_plan(CLI::App& app);
void add_prepare(CLI::App& app);
void add_train(CLI::App& app);
void add_sample(CLI::App& app);
void add_release(CLI::App& app);
void add_compare(CLI::App& app);
void add_account(CLI::App& app);
void add_calibrate(CLI::App& app);
void add_ledger(CLI::App& app);
void add_sweep(CLI::App& app);
void add_probe(CLI::App& app);
void add_inspect(CLI::App& app);
void add_doctor(CLI::App& app);
void add_bench(CLI::App& app);
void add_evaluate(CLI::App& app);
void add_audit(CLI::App& app);

/// --config FILE and trailing a.b=c overrides, as every subcommand with settings takes them.
struct ConfigOptions {
  std::string file;
  std::vector<std::string> overrides;
};
void add_config_options(CLI::App& subcommand, ConfigOptions& options);
/// Defaults, then the file, then the overrides; UsageError lists every mistake at once.
std::unique_ptr<Config> load(const ConfigOptions& options);
/// A message whose commands, "... --config FILE", name the file that load() was given, if it was.
std::string with_given_config(std::string message);

}  // namespace sfumato::cli
