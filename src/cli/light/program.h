#pragma once
#include <functional>
#include <memory>

#include <CLI/CLI.hpp>

namespace sfumato::cli {

// What the two programs have in common: `sfumato`, which serves the subcommands that need no
// LibTorch, and `sfumato-torch` beside it, which has them all.

/// The command line without its subcommands.
std::unique_ptr<CLI::App> make_app();

/// Subcommands that need no LibTorch, in the order of --help.
void add_light_subcommands(CLI::App& app);

/// Does what the command line asks for; the exit status. Errors are thrown, but for those of the
/// command line, which are printed.
int run(CLI::App& app, int argc, char** argv);

/// Runs `program`, prints what it throws and turns it into an exit status.
int exit_status_of(const std::function<int()>& program);

}  // namespace sfumato::cli
