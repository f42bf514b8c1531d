#pragma once
#include <CLI/CLI.hpp>

namespace sfumato::cli {

/// `bench step`: a private step against a plain one.
void add_bench_step(CLI::App& bench);

}  // namespace sfumato::cli
