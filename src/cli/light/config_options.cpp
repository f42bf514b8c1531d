#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/config/settings_help.h"
#include "sfumato/core/error.h"

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

/// What --config named, for with_given_config().
std::string& given_config() {
  static std::string file;
  return file;
}

}  // namespace

std::string with_given_config(std::string message) {
  constexpr std::string_view kPlace = "--config FILE";
  if (given_config().empty()) return message;
  const std::string given = "--config " + given_config();
  for (std::size_t at = 0; (at = message.find(kPlace, at)) != message.npos; at += given.size())
    message.replace(at, kPlace.size(), given);
  return message;
}

std::unique_ptr<Config> load(const ConfigOptions& options) {
  std::optional<std::filesystem::path> file;
  if (!options.file.empty()) file = given_config() = options.file;
  try {
    return load_config(file, options.overrides);
  } catch (const UsageError&) {
    if (another_process_says_it()) throw UsageError("");
    throw;
  }
}

}  // namespace sfumato::cli
