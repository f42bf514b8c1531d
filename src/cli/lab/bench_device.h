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

/// An option of a benchmark that takes several choices by turns: their names, with commas between.
template <typename Choice>
void add_choices_option(CLI::App& sub, const std::string& option, std::vector<Choice>& choices,
                        const std::string& help) {
  sub.add_option_function<std::vector<std::string>>(
         option,
         [&choices](const std::vector<std::string>& names) {
           choices.clear();
           for (const std::string& name : names) choices.push_back(parse_enum<Choice>(name));
         },
         help)
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember(names_of<Choice>()))
      ->default_str(to_string(choices.front()));
}

}  // namespace sfumato::cli
