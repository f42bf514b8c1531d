#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>

#include "cli/subcommands.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"
#include "sfumato/grad/page_pool.h"

namespace {

/// "did you mean" for a misspelt subcommand; CLI11 alone says only that arguments were left over.
std::string misspelt_subcommand(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return {};
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands({})) names.push_back(sub->get_name());
  for (const std::string& name : names)
    if (name == argv[1]) return {};
  return "unknown subcommand '" + std::string(argv[1]) + "'" +
         sfumato::did_you_mean(argv[1], names);
}

int run(int argc, char** argv) {
  CLI::App app{
      "sfumato: train an image generator under differential privacy, sample a corpus that "
      "may be shared."};
  app.set_version_flag("--version", sfumato::version() + " (" + sfumato::git_commit() + ")");
  app.require_subcommand(1);
  sfumato::install_page_pool();
  using namespace sfumato::cli;
  add_prepare(app);
  add_train(app);
  add_sample(app);
  add_account(app);
  add_calibrate(app);
  add_ledger(app);
  add_probe(app);
  add_inspect(app);
  add_doctor(app);
  add_bench(app);
  add_audit(app);
  const std::string misspelt = misspelt_subcommand(app, argc, argv);
  if (!misspelt.empty()) throw sfumato::UsageError(misspelt + "; see sfumato --help");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(sfumato::ErrorKind::kUsage);
  }
  return 0;
}

/// As an exit status.
int out_of_memory() {
  sfumato::log_error(
      "out of memory; set a smaller performance.physical_batch (for sampling: sample.batch)");
  return static_cast<int>(sfumato::ErrorKind::kDevice);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const sfumato::Error& error) {
    sfumato::log_error(error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const c10::OutOfMemoryError&) {
    return out_of_memory();
  } catch (const std::exception& error) {
    sfumato::log_error(std::string("internal error: ") + error.what());
    return 1;
  }
}
