#pragma once
#include <CLI/CLI.hpp>

namespace sfumato::cli {

/// `bench ranks`: a private step in one process and in several.
void add_bench_ranks(CLI::App& bench);

}  // namespace sfumato::cli
