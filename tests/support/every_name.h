#pragma once
#include <gtest/gtest.h>

#include <cctype>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/core/enum_names.h"

namespace sfumato::test {

constexpr int kMostEnumerators = 32;

/// What the compiler calls a value: "kCuda", or "" where no enumerator has it, which it writes as a
/// cast, "(sfumato::ComputeDevice)7".
template <auto Value>
std::string enumerator_name() {
  const std::string text = __PRETTY_FUNCTION__;
  const std::size_t start = text.find("Value = ") + 8;
  const std::string value = text.substr(start, text.find_first_of(";]", start) - start);
  return value.starts_with('(') ? "" : value.substr(value.rfind("::") + 2);
}

/// By value, from 0; "" in gaps and behind the last.
template <typename E, int... Values>
std::vector<std::string> enumerator_names(std::integer_sequence<int, Values...>) {
  return {enumerator_name<static_cast<E>(Values)>()...};
}

/// Letters and digits alone, in lower case.
inline std::string plain(const std::string& name) {
  std::string letters;
  for (const unsigned char c : name)
    if (std::isalnum(c) != 0) letters += static_cast<char>(std::tolower(c));
  return letters;
}

/// Every enumerator is in the table of names once, under its own name.
template <typename E>
void expect_every_enumerator_named() {
  SCOPED_TRACE(EnumNames<E>::kWhat);
  std::size_t enumerators = 0;
  const auto words = enumerator_names<E>(std::make_integer_sequence<int, kMostEnumerators>());
  for (int value = 0; value < kMostEnumerators; ++value) {
    const std::string& word = words[static_cast<std::size_t>(value)];
    if (word.empty()) continue;
    ++enumerators;
    const std::string name = to_string(static_cast<E>(value));
    EXPECT_EQ("k" + plain(name), plain(word));
    EXPECT_EQ(parse_enum<E>(name), static_cast<E>(value));
  }
  const std::vector<std::string> names = names_of<E>();
  EXPECT_GT(enumerators, 1U);
  EXPECT_EQ(names.size(), enumerators) << "a value is in the table twice";
  EXPECT_EQ(std::set(names.begin(), names.end()).size(), enumerators) << "a name is there twice";
}

template <typename... E>
void expect_all_named() {
  (expect_every_enumerator_named<E>(), ...);
}

}  // namespace sfumato::test
