#pragma once
#include <CLI/CLI.hpp>

#include <string>
#include <vector>

#include "cli/lab/enum_option.h"
#include "sfumato/core/choices.h"

namespace sfumato::cli {

inline void add_device_option(CLI::App& sub, ComputeDevice& device) {
  add_enum_option(sub, "--device", device, "cpu or cuda");
}

inline void add_precision_option(CLI::App& sub, Precision& precision) {
  add_enum_option(sub, "--precision", precision, "fp32 or bf16; on a GPU also tf32");
}

/// --precision of a benchmark that takes several by turns: their names, with commas between.
inline void add_precisions_option(CLI::App& sub, std::vector<Precision>& precisions) {
  sub.add_option_function<std::vector<std::string>>(
         "--precision",
         [&precisions](const std::vector<std::string>& names) {
           precisions.clear();
           for (const std::string& name : names) precisions.push_back(parse_enum<Precision>(name));
         },
         "fp32 or bf16; on a GPU also tf32. Several by turns in one process, as in fp32,bf16: the "
         "others over the first, turn for turn")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember(names_of<Precision>()))
      ->default_str("fp32");
}

}  // namespace sfumato::cli
