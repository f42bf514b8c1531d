#pragma once
#include <CLI/CLI.hpp>

namespace sfumato::cli {

void add_bench_kernels(CLI::App& bench);

}  // namespace sfumato::cli
