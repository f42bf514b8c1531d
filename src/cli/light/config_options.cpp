#include <cstdio>
#include <optional>

#include "cli/subcommands.h"

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
  subcommand.footer(settings_help);
}

std::unique_ptr<Config> load(const ConfigOptions& options) {
  std::optional<std::filesystem::path> file;
  if (!options.file.empty()) file = options.file;
  return load_config(file, options.overrides);
}

}  // namespace sfumato::cli
