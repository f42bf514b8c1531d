#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/config/settings_help.h"
#include "sfumato/core/error.h"
#include "sfumato/core/shell_word.h"

namespace sfumato::cli {

void add_config_options(CLI::App& subcommand, ConfigOptions& options) {
  subcommand.add_option("--config", options.file, "YAML file with settings")->type_name("FILE");
  // Takes every positional that is left: add a subcommand's own positionals first.
  subcommand
      .add_option("overrides", options.overrides,
                  "settings that override the file, such as optimizer.learning_rate=0.001")
      ->type_name("section.setting=value");
  subcommand
      .add_flag_callback(
          "--print-settings",
          [] {
            const std::string text = documented_yaml();
            std::fwrite(text.data(), 1, text.size(), stdout);
            throw CLI::Success();
          },
          "print every setting with its documentation as YAML, and exit")
      ->trigger_on_parse();
  subcommand
      .add_flag_callback(
          "--help-all",
          [&subcommand] {
            subcommand.footer(settings_help);
            const std::string text = subcommand.help();
            std::fwrite(text.data(), 1, text.size(), stdout);
            throw CLI::Success();
          },
          "this help with the settings of all subcommands, and exit")
      ->trigger_on_parse();
  const std::string name = subcommand.get_name();
  subcommand.footer([name] { return settings_help_of(sections_read_by(name)); });
}

namespace {

/// The settings that the command line gave, as words of a shell: "--config x.yaml
/// data.users=u.csv". Empty without --config. For with_given_config().
std::string& given_settings() {
  static std::string words;
  return words;
}

}  // namespace

std::string with_given_config(std::string message) {
  constexpr std::string_view kPlace = "--config FILE";
  const std::string& given = given_settings();
  if (given.empty()) return message;
  for (std::size_t at = 0; (at = message.find(kPlace, at)) != message.npos; at += given.size())
    message.replace(at, kPlace.size(), given);
  return message;
}

std::unique_ptr<Config> load(const ConfigOptions& options) {
  std::optional<std::filesystem::path> file;
  if (!options.file.empty()) {
    file = options.file;
    std::string& given = given_settings();
    given = "--config " + shell_word(options.file);
    for (const std::string& each : options.overrides) given += " " + shell_word(each);
  }
  try {
    return load_config(file, options.overrides);
  } catch (const UsageError&) {
    if (another_process_says_it()) throw UsageError("");
    throw;
  }
}

}  // namespace sfumato::cli
