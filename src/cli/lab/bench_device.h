#pragma once
#include <CLI/CLI.hpp>

#include "cli/lab/enum_option.h"
#include "sfumato/core/choices.h"

namespace sfumato::cli {

/// --device and, unless `precision` is null, --precision of a benchmark.
inline void add_device_options(CLI::App& sub, ComputeDevice& device, Precision* precision) {
  add_enum_option(sub, "--device", device, "cpu or cuda");
  if (precision != nullptr)
    add_enum_option(sub, "--precision", *precision, "fp32 or bf16; on a GPU also tf32");
}

}  // namespace sfumato::cli
