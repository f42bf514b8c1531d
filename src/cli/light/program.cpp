#include "cli/light/program.h"

#include <new>
#include <string>
#include <vector>

#include "cli/subcommands.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"

namespace sfumato::cli {
namespace {

/// "did you mean" for a misspelt subcommand; CLI11 alone says only that arguments were left over.
std::string misspelt_subcommand(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return {};
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands({})) names.push_back(sub->get_name());
  for (const std::string& name : names)
    if (name == argv[1]) return {};
  return "unknown subcommand '" + std::string(argv[1]) + "'" + did_you_mean(argv[1], names);
}

}  // namespace

std::unique_ptr<CLI::App> make_app() {
  auto app = std::make_unique<CLI::App>(
      "sfumato: train an image generator under differential privacy, sample a corpus that "
      "may be shared.");
  app->set_version_flag("--version", version() + " (" + git_commit() + ")");
  app->require_subcommand(1);
  return app;
}

void add_light_subcommands(CLI::App& app) {
  add_account(app);
  add_calibrate(app);
  add_ledger(app);
}

int run(CLI::App& app, int argc, char** argv) {
  const std::string misspelt = misspelt_subcommand(app, argc, argv);
  if (!misspelt.empty()) throw UsageError(misspelt + "; see sfumato --help");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ErrorKind::kUsage);
  }
  return 0;
}

int exit_status_of(const std::function<int()>& program) {
  try {
    return program();
  } catch (const Error& error) {
    log_error(error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    log_error(
        "out of memory; set a smaller performance.physical_batch (for sampling: sample.batch)");
    return static_cast<int>(ErrorKind::kDevice);
  } catch (const std::exception& error) {
    log_error(std::string("internal error: ") + error.what());
    return 1;
  }
}

}  // namespace sfumato::cli
