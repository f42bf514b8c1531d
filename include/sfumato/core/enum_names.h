#pragma once
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// One enumerator and the word for it in settings, files and options.
template <typename E>
struct EnumName {
  E value;
  std::string_view name;
};

/// A word that people will try although it stands for nothing, and why.
struct RefusedName {
  std::string_view name, why;
};

/// The names of an enumeration, the only place where they are written. Specialised beside the
/// enumeration, each enumerator once, in the order in which people are shown them:
///
///   template <>
///   struct EnumNames<Colour> {
///     static constexpr std::string_view kWhat = "colour";  // what messages call a value
///     static constexpr EnumName<Colour> kTable[] = {{Colour::kRed, "red"}, ...};
///     static constexpr RefusedName kRefused[] = {{"puce", "is no colour"}, ...};  // or not at all
///   };
template <typename E>
struct EnumNames;

template <typename E>
concept NamedEnum = requires {
  EnumNames<E>::kTable;
};

/// UsageError: "colour 'rde' is none of red, blue; did you mean 'red'?"
[[noreturn]] void throw_unknown_name(std::string_view what, std::string_view name,
                                     const std::vector<std::string>& names);
/// std::logic_error: the table lacks an enumerator, or the value is none.
[[noreturn]] void throw_without_name(std::string_view what);

/// All names, in the order of the table.
template <NamedEnum E>
std::vector<std::string> names_of() {
  std::vector<std::string> names;
  for (const EnumName<E>& row : EnumNames<E>::kTable) names.emplace_back(row.name);
  return names;
}

/// Words that are none of the names by design, each with why.
template <NamedEnum E>
std::vector<RefusedName> refused_names_of() {
  if constexpr (requires { EnumNames<E>::kRefused; })
    return {std::begin(EnumNames<E>::kRefused), std::end(EnumNames<E>::kRefused)};
  return {};
}

template <NamedEnum E>
std::string to_string(E value) {
  for (const EnumName<E>& row : EnumNames<E>::kTable)
    if (row.value == value) return std::string(row.name);
  throw_without_name(EnumNames<E>::kWhat);
}

/// Nothing for a word that is not in the table.
template <NamedEnum E>
std::optional<E> find_enum(std::string_view name) {
  for (const EnumName<E>& row : EnumNames<E>::kTable)
    if (row.name == name) return row.value;
  return std::nullopt;
}

/// The inverse of to_string; UsageError that lists the names for another word.
template <NamedEnum E>
E parse_enum(std::string_view name) {
  if (const std::optional<E> found = find_enum<E>(name)) return *found;
  throw_unknown_name(EnumNames<E>::kWhat, name, names_of<E>());
}

}  // namespace sfumato
