#pragma once
#include <CLI/CLI.hpp>

namespace sfumato::cli {

void add_bench_project(CLI::App& bench);

}  // namespace sfumato::cli
