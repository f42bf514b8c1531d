#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace sfumato::cli {

// What the programs have in common. `sfumato` serves the subcommands that need no LibTorch, knows
// all others by name, and becomes the program beside it that serves the one that is asked for.

/// A subcommand and the program that serves it.
struct Subcommand {
  const char *name, *description, *program;
  /// Processes that a launcher starts do it together; what is not shared out the first one does,
  /// and the others end at once, silently.
  bool is_shared = false;
};
/// The table of subcommands, in the order of --help.
std::span<const Subcommand> subcommands();
inline constexpr const char* kLightProgram = "sfumato";

/// Whether this process leaves what the command line asks for to the first of several.
bool is_for_the_first_alone(int argc, char** argv);

/// Adds a subcommand of the table to `app`.
CLI::App* add_subcommand(CLI::App& app, const std::string& name);

/// Version and commit of this build; the environment variable in which `sfumato` says its own to
/// the program that it becomes.
std::string build_name();
inline constexpr const char* kBuildVariable = "SFUMATO_BUILD";

/// The command line without its subcommands.
std::unique_ptr<CLI::App> make_app();

/// Does what the command line asks for; the exit status. Errors are thrown, but for those of the
/// command line, which are printed.
int run(CLI::App& app, int argc, char** argv);

/// Whether a launcher started several processes here and this is not the first of them: it reads
/// the same command line and the same files, and what is wrong with them is said once. An error
/// without a text is not printed.
bool another_process_says_it();

/// Runs `program`, prints what it throws and turns it into an exit status.
int exit_status_of(const std::function<int()>& program);

}  // namespace sfumato::cli
