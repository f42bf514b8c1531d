#pragma once
#include <CLI/CLI.hpp>
#include <initializer_list>

namespace sfumato::cli {

/// The main function of a program whose subcommands need LibTorch.
int run_with_torch(int argc, char** argv, std::initializer_list<void (*)(CLI::App&)> subcommands);

}  // namespace sfumato::cli
