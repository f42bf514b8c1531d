#include "cli/light/program.h"

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "cli/subcommands.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"
#include "sfumato/dist/rank_identity.h"

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

/// "--section.setting=value" is the override without its dashes: agents of other programs write
/// settings so, and no option of ours has a dot in its name.
bool is_dashed_override(std::string_view word) {
  const std::size_t equals = word.find('=');
  return word.starts_with("--") && equals != std::string_view::npos &&
         word.substr(0, equals).find('.') != std::string_view::npos;
}

/// What CLI11 found, as other errors are worded: "--json: unknown option; see sfumato train
/// --help".
std::string in_our_words(const CLI::App& app, const CLI::ParseError& error) {
  std::string command = "sfumato";
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    command += " " + at->get_name();
  }
  std::string text = error.what();
  while (text.ends_with('\n') || text.ends_with('.')) text.pop_back();
  constexpr std::string_view kLeft = "The following argument";
  if (text.starts_with(kLeft)) {
    const std::size_t colon = text.find(": ");
    text = "not understood: " + (colon == text.npos ? text : text.substr(colon + 2));
  } else if (text.size() > 1 && text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a') {
    text[0] = static_cast<char>(text[0] - 'A' + 'a');
  }
  return text + "; see " + command + " --help";
}

}  // namespace

std::span<const Subcommand> subcommands() {
  // In "sfumato-torch" is what makes a corpus, in "sfumato-lab" what looks at one and at machines.
  static constexpr const char *kTorch = "sfumato-torch", *kLab = "sfumato-lab";
  static constexpr Subcommand kTable[] = {
      {"init", "a configuration from a look at images and from what you say may be public", kTorch},
      {"plan", "what training will spend and take, before anything private is touched", kLab},
      {"prepare",
       "Private images (folder, tar, zip, WebDataset, .npz, IDX, CIFAR binary) to a record store.",
       kTorch},
      {"train", "train a generator on a record store", kTorch, true},
      {"sample", "draw a synthetic corpus with a privacy card", kTorch, true},
      {"release", "the weights of one checkpoint of a run, with a privacy card", kTorch},
      {"compare", "runs side by side: settings that differ, cards, pictures", kLightProgram},
      {"account", "epsilon or delta of planned or executed training", kLightProgram},
      {"calibrate", "the noise, the steps or the sample rate that reach a target (epsilon, delta)",
       kLightProgram},
      {"ledger", "the record of every noisy step of a run", kLightProgram},
      {"sweep", "many runs from one file: plan, run, compare, choose", kLightProgram},
      {"probe", "run a network once on given inputs; write outputs, losses and gradient norms",
       kLab},
      {"inspect", "what is in a checkpoint, run, record store, corpus, ledger or safetensors file",
       kLab},
      {"doctor", "whether this machine is ready, and what a configuration would take", kLab},
      {"bench", "how fast this machine is at what training needs", kLab},
      {"evaluate", "how near a corpus comes to real images: distances, coverage, accuracy", kLab},
      {"audit", "attacks on the mechanism, on trained networks and on a corpus", kLab, true}};
  return kTable;
}

bool is_for_the_first_alone(int argc, char** argv) {
  using std::literals::operator""sv;
  if (argc > 1)
    for (const Subcommand& row : subcommands())
      if (argv[1] == std::string_view(row.name) && row.is_shared) return false;
  if (argc > 2 && argv[1] == "bench"sv && argv[2] == "ranks"sv) return false;
  try {
    return identity_of_environment().rank > 0;
  } catch (const UsageError&) {  // an environment that says nothing clear matters to ranks alone
    return false;
  }
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
  std::vector<char*> words(argv, argv + argc);
  bool ended = false;  // by "--": what follows is taken as it is
  for (char*& word : words) {
    ended = ended || std::string_view(word) == "--";
    if (!ended && is_dashed_override(word)) word += 2;
  }
  try {
    app.parse(argc, words.data());
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    throw UsageError(another_process_says_it() ? std::string() : in_our_words(app, error));
  }
  return 0;
}

bool another_process_says_it() {
  for (const char* name : {"LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"})
    if (const char* value = std::getenv(name)) return parse_int64(value).value_or(0) > 0;
  return false;
}

int exit_status_of(const std::function<int()>& program) {
  try {
    return program();
  } catch (const Error& error) {
    // A stop that was asked for is no error.
    if (error.what()[0] != '\0')
      (error.kind() == ErrorKind::kInterrupted ? log_info
                                               : log_error)(with_given_config(error.what()));
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
