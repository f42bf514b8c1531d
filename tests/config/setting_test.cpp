// Settings of every type, in a tree of their own.
#include "sfumato/config/setting.h"

#include <gtest/gtest.h>

#include "sfumato/config/settings_tree.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

enum class Colour { kRed, kBlue };

}  // namespace

template <>
struct EnumNames<Colour> {
  static constexpr std::string_view kWhat = "colour";
  static constexpr EnumName<Colour> kTable[] = {{Colour::kRed, "red"}, {Colour::kBlue, "blue"}};
};

namespace {

struct Every : Section {
  explicit Every(SettingsTree* tree) : Section(tree, "every", "All types.") {}
  Setting<bool> flag{this, "flag", false, any_value(), "", "A flag."};
  Setting<int64_t> count{this, "count", 3, between(0, 9), "things", "A count."};
  Setting<double> rate{this, "rate", 0.5, above_up_to(0, 1), "", "A rate."};
  Setting<std::optional<double>> maybe{this, "maybe", std::nullopt, greater_than(0), "", "Maybe."};
  Setting<std::string> word{this, "word", "a", any_value(), "", "A word."};
  Setting<std::vector<int64_t>> sizes{this, "sizes", {1, 2}, at_least(1), "", "Sizes."};
  Setting<std::vector<std::string>> names{this, "names", {"*"}, not_empty(), "", "Names."};
  Setting<Colour> colour{this, "colour", Colour::kRed, "A colour."};
};
struct Tree : SettingsTree {
  Every every{this};
  void set_override(const std::string& text) { EXPECT_EQ(try_override(text), std::nullopt); }
};

/// The part of the message after "command line: 'text': "; "" if the override is taken.
std::string refusal(const std::string& text) {
  Tree tree;
  const auto message = tree.try_override(text);
  const std::string prefix = "command line: '" + text + "': ";
  if (!message) return "";
  return message->starts_with(prefix) ? message->substr(prefix.size()) : "NO PREFIX: " + *message;
}

TEST(Setting, BoolTakesTrueAndFalseOnly) {
  Tree tree;
  tree.set_override("every.flag=true");
  EXPECT_TRUE(tree.every.flag());
  tree.set_override("every.flag=false");
  EXPECT_FALSE(tree.every.flag());
  for (const char* bad : {"True", "yes", "on", "1", "", "null", " true"})
    EXPECT_EQ(refusal(std::string("every.flag=") + bad),
              std::string("expected true or false, got '") + bad + "'");
}

TEST(Setting, IntegersAreWhole) {
  Tree tree;
  tree.set_override("every.count=7");
  EXPECT_EQ(tree.every.count(), 7);
  for (const char* bad : {"3.0", "1e1", "0x1", "3 ", "", "three", "99999999999999999999"})
    EXPECT_EQ(refusal(std::string("every.count=") + bad),
              std::string("expected an integer, got '") + bad + "'");
  EXPECT_EQ(refusal("every.count=10"), "must be between 0 and 9, got 10");
}

TEST(Setting, RealsAreFiniteNumbersInRange) {
  Tree tree;
  tree.set_override("every.rate=1e-3");
  EXPECT_EQ(tree.every.rate(), 1e-3);
  for (const char* bad : {"0,5", "0.5f", "1e999", "", "half", ".", "0x1p-1", "1_0"})
    EXPECT_EQ(refusal(std::string("every.rate=") + bad),
              std::string("expected a real number, got '") + bad + "'");
  for (const char* bad : {"nan", "inf", "-inf", "infinity"})
    EXPECT_NE(refusal(std::string("every.rate=") + bad).find("must be finite"), std::string::npos);
  EXPECT_EQ(refusal("every.rate=0"), "must be greater than 0 and at most 1, got 0");
}

TEST(Setting, NullUnsets) {
  Tree tree;
  EXPECT_FALSE(tree.every.maybe().has_value());
  tree.set_override("every.maybe=2.5");
  EXPECT_EQ(tree.every.maybe(), 2.5);
  tree.set_override("every.maybe=null");
  EXPECT_FALSE(tree.every.maybe().has_value());
  EXPECT_EQ(refusal("every.maybe=-1"), "must be greater than 0, got -1");
  EXPECT_EQ(refusal("every.maybe="), "expected a real number, got ''");
  EXPECT_EQ(refusal("every.rate=null"), "expected a real number, got 'null'");
}

TEST(Setting, TextIsTakenAsItStands) {
  Tree tree;
  tree.set_override("every.word= a=b, [c] \"d\" ");
  EXPECT_EQ(tree.every.word(), " a=b, [c] \"d\" ");
  tree.set_override("every.word=");
  EXPECT_EQ(tree.every.word(), "");
}

TEST(Setting, Lists) {
  Tree tree;
  tree.set_override("every.sizes=4,5");
  EXPECT_EQ(tree.every.sizes(), (std::vector<int64_t>{4, 5}));
  tree.set_override("every.sizes=[6, 7 ,8]");
  EXPECT_EQ(tree.every.sizes(), (std::vector<int64_t>{6, 7, 8}));
  tree.set_override("every.sizes=[]");
  EXPECT_TRUE(tree.every.sizes().empty());
  tree.set_override("every.names=*attn*,\"a, b\",'it\"s',conv");
  EXPECT_EQ(tree.every.names(), (std::vector<std::string>{"*attn*", "a, b", "it\"s", "conv"}));
  EXPECT_EQ(refusal("every.sizes=1,x"), "expected an integer, got 'x'");
  EXPECT_EQ(refusal("every.sizes=1,,2"), "expected an integer, got ''");
  EXPECT_EQ(refusal("every.sizes=1,"), "expected an integer, got ''");
  EXPECT_EQ(refusal("every.sizes=1,0"), "must be at least 1, got 0");
  EXPECT_EQ(refusal("every.sizes=1,\"2\""), "expected an integer, got the quoted text \"2\"");
  EXPECT_EQ(refusal("every.names=[]"), "must not be empty");
  EXPECT_EQ(refusal("every.names=a,"), "must not be empty");
}

TEST(Setting, RefusedValueLeavesTheOldOne) {
  Tree tree;
  tree.set_override("every.sizes=4,5");
  EXPECT_TRUE(tree.try_override("every.sizes=6,x"));
  EXPECT_EQ(tree.every.sizes(), (std::vector<int64_t>{4, 5}));
  EXPECT_TRUE(tree.try_override("every.count=10"));
  EXPECT_EQ(tree.every.count(), 3);
  EXPECT_TRUE(tree.every.count.is_default());
}

TEST(Setting, SetByProgramPassesTheSameChecks) {
  Tree tree;
  tree.every.count.set(9);
  tree.every.rate.set(0.1 + 0.2);
  tree.every.maybe.set(1.0);
  tree.every.maybe.set(std::nullopt);
  tree.every.flag.set(true);
  tree.every.word.set("null");
  tree.every.names.set({"a b", "null", "\"q\""});
  tree.every.sizes.set({7});
  EXPECT_EQ(tree.every.count(), 9);
  EXPECT_EQ(tree.every.rate(), 0.1 + 0.2);
  EXPECT_FALSE(tree.every.maybe().has_value());
  EXPECT_TRUE(tree.every.flag());
  EXPECT_EQ(tree.every.word(), "null");
  EXPECT_EQ(tree.every.names(), (std::vector<std::string>{"a b", "null", "\"q\""}));
  EXPECT_EQ(tree.every.sizes(), (std::vector<int64_t>{7}));
  EXPECT_EQ(tree.every.count.provenance(), "set by the program");
  EXPECT_THROW(tree.every.count.set(10), UsageError);
  EXPECT_THROW(tree.every.rate.set(std::numeric_limits<double>::quiet_NaN()), UsageError);
  EXPECT_THROW(tree.every.names.set({}), UsageError);
  EXPECT_EQ(tree.every.count(), 9);
}

TEST(Setting, YamlOfEveryTypeReadsBack) {
  Tree tree;
  tree.every.rate.set(0.1 + 0.2);
  tree.every.word.set("tab\t\"quote\" \\ \x04 \x7f é # : - ");
  tree.every.names.set({"*", "&a", "!b", "null", "3", "true", "a: b", "[", "- x", "#", "é"});
  tree.every.sizes.set({9, 8});
  tree.every.maybe.set(1e-300);
  Tree copy;
  EXPECT_EQ(copy.read_yaml(tree.resolved_yaml(), "f"), std::vector<std::string>{});
  EXPECT_EQ(copy.every.rate(), tree.every.rate());
  EXPECT_EQ(copy.every.word(), tree.every.word());
  EXPECT_EQ(copy.every.names(), tree.every.names());
  EXPECT_EQ(copy.every.sizes(), tree.every.sizes());
  EXPECT_EQ(copy.every.maybe(), tree.every.maybe());
  EXPECT_EQ(copy.every.flag(), false);
}

TEST(Setting, ChoiceIsANameOutsideAndAnEnumeratorInside) {
  Tree tree;
  EXPECT_EQ(tree.every.colour(), Colour::kRed);
  EXPECT_EQ(tree.every.colour.default_yaml(), "red");
  EXPECT_EQ(tree.every.colour.type_name(), "text");
  EXPECT_EQ(tree.every.colour.range().describe(), "one of red, blue");
  tree.set_override("every.colour=blue");
  EXPECT_EQ(tree.every.colour(), Colour::kBlue);
  EXPECT_EQ(tree.every.colour.value_yaml(), "blue");
  EXPECT_EQ(tree.every.colour.provenance(), "command line");
  Tree copy;
  EXPECT_TRUE(copy.read_yaml(tree.resolved_yaml(), "resolved.yaml").empty());
  EXPECT_EQ(copy.every.colour(), Colour::kBlue);
  EXPECT_EQ(copy.every.colour.default_yaml(), "red");
  copy.every.colour.set(Colour::kRed, "a test");
  EXPECT_EQ(copy.every.colour(), Colour::kRed);
  EXPECT_EQ(copy.every.colour.provenance(), "a test");
  EXPECT_EQ(refusal("every.colour=blu"),
            "must be one of red, blue, got 'blu'; did you mean 'blue'?");
  EXPECT_EQ(refusal("every.colour="), "must be one of red, blue, got ''");
}

TEST(Setting, KnowsItsKeyAndType) {
  Tree tree;
  EXPECT_EQ(tree.every.count.key(), "every.count");
  EXPECT_EQ(tree.every.count.type_name(), "integer");
  EXPECT_EQ(tree.every.maybe.type_name(), "real number or null");
  EXPECT_EQ(tree.every.maybe.default_yaml(), "null");
  EXPECT_EQ(tree.keys(),
            (std::vector<std::string>{"every.flag", "every.count", "every.rate", "every.maybe",
                                      "every.word", "every.sizes", "every.names", "every.colour"}));
  EXPECT_EQ(tree.find("every.count"), &tree.every.count);
  EXPECT_EQ(tree.find("every"), nullptr);
  EXPECT_EQ(tree.find("every.none"), nullptr);
  EXPECT_EQ(tree.find("none.count"), nullptr);
}

}  // namespace
}  // namespace sfumato
