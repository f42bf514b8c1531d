#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/error.h"
#include "sfumato/core/place.h"

using namespace sfumato::cli;

namespace {

namespace fs = std::filesystem;

/// The program that does what the command line asks for. Of no subcommand, or none that there is,
/// this one tells.
std::string_view program_for(int argc, char** argv) {
  int first = 1;  // "--help train" is "train --help"
  while (first < argc &&
         (argv[first] == std::string_view("--help") || argv[first] == std::string_view("-h")))
    ++first;
  if (first < argc)
    for (const Subcommand& row : subcommands())
      if (std::string_view(argv[first]) == row.name) return row.program;
  return kLightProgram;
}

/// Becomes another program: the same process, with the same name in its texts.
[[noreturn]] void become(std::string_view name, char** argv) {
  const fs::path self = sfumato::this_program();
  const fs::path program = self.parent_path() / name;
  const auto refuse = [&](const std::string& reason) {
    throw sfumato::DeviceError(
        fmt::format("'{}', which does what is asked for, cannot be started ({}): build it with "
                    "scripts/build, or move the programs together",
                    program.string(), reason));
  };
  if (self.empty()) refuse("where this program lies is not known");
  std::error_code ignored;
  if (fs::equivalent(self, program, ignored)) refuse("it is this program");
  ::setenv(kBuildVariable, build_name().c_str(), 1);
  // LibTorch's threads wait for each other by spinning, by default for milliseconds: a step then
  // takes many times as long where other programs use the cores. So many rounds are some
  // microseconds.
  if (std::getenv("OMP_WAIT_POLICY") == nullptr)
    ::setenv("GOMP_SPINCOUNT", "3000", /*overwrite=*/0);
  ::execv(program.c_str(), argv);
  refuse(std::strerror(errno));
  std::abort();
}

}  // namespace

int main(int argc, char** argv) {
  return exit_status_of([&] {
    if (is_for_the_first_alone(argc, argv)) return 0;
    const std::string_view program = program_for(argc, argv);
    if (program != kLightProgram) become(program, argv);
    const auto app = make_app();
    const std::map<std::string_view, void (*)(CLI::App&)> served = {{"account", add_account},
                                                                    {"calibrate", add_calibrate},
                                                                    {"ledger", add_ledger},
                                                                    {"sweep", add_sweep},
                                                                    {"compare", add_compare}};
    for (const Subcommand& row : subcommands())
      if (std::string_view(row.program) == kLightProgram)
        served.at(row.name)(*app);
      else
        add_subcommand(*app, row.name)->callback([] {
          throw sfumato::UsageError("the subcommand is the first word of the command line");
        });
    return run(*app, argc, argv);
  });
}
