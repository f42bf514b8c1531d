#pragma once
#include <CLI/CLI.hpp>

#include <string>

#include "sfumato/core/enum_names.h"

namespace sfumato::cli {

/// An option that takes the names of an enumeration; --help shows them and the value it has now.
/// `value` must live until the options are parsed.
template <NamedEnum E>
void add_enum_option(CLI::App& sub, const std::string& option, E& value, const std::string& help) {
  sub.add_option_function<std::string>(
         option, [&value](const std::string& name) { value = parse_enum<E>(name); }, help)
      ->check(CLI::IsMember(names_of<E>()))
      ->default_str(to_string(value));
}

}  // namespace sfumato::cli
