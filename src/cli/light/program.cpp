#include "cli/light/program.h"

#include <new>
#include <stdexcept>
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

std::span<const Subcommand> subcommands() {
  // In "sfumato-torch" is what makes a corpus, in "sfumato-lab" what looks at one and at machines.
  static constexpr const char *kTorch = "sfumato-torch", *kLab = "sfumato-lab";
  static constexpr Subcommand kTable[] = {
      {"prepare",
       "Private images (folder, tar, zip, WebDataset, .npz, IDX, CIFAR binary) to a record store.",
       kTorch},
      {"train", "train a generator on a record store", kTorch},
      {"sample", "draw a synthetic corpus with a privacy card", kTorch},
      {"release", "the weights of one checkpoint of a run, with a privacy card", kTorch},
      {"compare", "runs side by side: settings that differ, cards, pictures", kLightProgram},
      {"account", "epsilon or delta of planned or executed training", kLightProgram},
      {"calibrate", "the noise, the steps or the sample rate that reach a target (epsilon, delta)",
       kLightProgram},
      {"ledger", "the record of every noisy step of a run", kLightProgram},
      {"probe", "run a network once on given inputs; write outputs, losses and gradient norms",
       kLab},
      {"inspect", "what is in a checkpoint, run, record store, corpus, ledger or safetensors file",
       kLab},
      {"doctor", "whether this machine is ready, and what a configuration would take", kLab},
      {"bench", "how fast this machine is at what training needs", kLab},
      {"audit", "attacks on the mechanism, on trained networks and on a corpus", kLab}};
  return kTable;
}

CLI::App* add_subcommand(CLI::App& app, const std::string& name) {
  for (const Subcommand& row : subcommands())
    if (row.name == name) return app.add_subcommand(row.name, row.description);
  throw std::logic_error("no row in the table of subcommands: " + name);
}

std::string build_name() { return version() + " (" + git_commit() + ")"; }

std::unique_ptr<CLI::App> make_app() {
  auto app = std::make_unique<CLI::App>(
      "sfumato: train an image generator under differential privacy, sample a corpus that "
      "may be shared.");
  app->set_version_flag("--version", build_name());
  app->require_subcommand(1);
  return app;
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
    // A stop that was asked for is no error.
    (error.kind() == ErrorKind::kInterrupted ? log_info : log_error)(error.what());
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
