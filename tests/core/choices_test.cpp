// Tables of names: every enumerator has one name, its own.
#include "sfumato/core/choices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <set>
#include <stdexcept>
#include <utility>

#include "sfumato/core/error.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using test::error_message;
using ::testing::ElementsAre;
using ::testing::StrEq;

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
std::string plain(const std::string& name) {
  std::string letters;
  for (const unsigned char c : name)
    if (std::isalnum(c) != 0) letters += static_cast<char>(std::tolower(c));
  return letters;
}

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

TEST(Choices, EveryEnumeratorHasItsOwnName) {
  expect_all_named<SourceFormat, DamagedPictures, DepthRule, Clipping, Adjacency, Accountant,
                   Prediction, BetaSchedule, OptimizerKind, RateDecay, AlgorithmPolicy,
                   ComputeDevice, Precision, TimestepSpacing, DdpmVariance, CorpusFormat>();
}

TEST(EnumNames, NothingElseIsTaken) {
  for (const char* word : {"", "no such name", "kFlat", "FLAT", "flat "}) {
    EXPECT_FALSE(find_enum<Clipping>(word)) << word;
    EXPECT_THROW(parse_enum<Clipping>(word), UsageError) << word;
  }
  EXPECT_THROW(to_string(static_cast<Clipping>(kMostEnumerators)), std::logic_error);
}

TEST(EnumNames, AnUnknownWordIsToldWhatThereIs) {
  EXPECT_THAT(names_of<Clipping>(), ElementsAre("flat", "per_layer", "automatic"));
  EXPECT_THAT(error_message<UsageError>([] { parse_enum<Clipping>("per-layer"); }),
              StrEq("clipping 'per-layer' is none of flat, per_layer, automatic; did you mean "
                    "'per_layer'?"));
  EXPECT_THAT(error_message<UsageError>([] { parse_enum<Accountant>("moments"); }),
              StrEq("accountant 'moments' is none of rdp, pld"));
}

}  // namespace
}  // namespace sfumato
