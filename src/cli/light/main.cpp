#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "cli/light/program.h"
#include "sfumato/core/error.h"

namespace {

namespace fs = std::filesystem;

/// Whether this program does it alone. The list of all subcommands, and what is none, is the
/// other's to tell.
bool is_served_here(const CLI::App& app, int argc, char** argv) {
  if (argc < 2) return false;
  const std::string_view first = argv[1];
  const auto is_first = [&](const CLI::App* subcommand) { return subcommand->get_name() == first; };
  return !app.get_subcommands(is_first).empty() || (argc == 2 && first == "--version");
}

/// Becomes the program that has all subcommands: the same process, with the same name in its texts.
[[noreturn]] void become_the_whole_program(char** argv) {
  std::error_code error;
  const fs::path program =
      fs::read_symlink("/proc/self/exe", error).parent_path() / SFUMATO_WHOLE_PROGRAM;
  ::execv(program.c_str(), argv);
  const char* reason = std::strerror(errno);
  throw sfumato::DeviceError(fmt::format(
      "'{}', which does what needs LibTorch, cannot be started ({}): build again (scripts/build), "
      "or move both programs together",
      program.string(), reason));
}

}  // namespace

int main(int argc, char** argv) {
  return sfumato::cli::exit_status_of([&] {
    const auto app = sfumato::cli::make_app();
    sfumato::cli::add_light_subcommands(*app);
    if (!is_served_here(*app, argc, argv)) become_the_whole_program(argv);
    return sfumato::cli::run(*app, argc, argv);
  });
}
