#include "sfumato/core/text.h"

#include <gtest/gtest.h>

#include <clocale>
#include <limits>
#include <regex>
#include <vector>

namespace sfumato {
namespace {

const std::vector<std::string> kNames = {"sample_rate", "steps", "noise_multiplier", "seed"};

TEST(Nearest, FindsTheNameThatWasMeant) {
  EXPECT_EQ(nearest("sampel_rate", kNames), "sample_rate");
  EXPECT_EQ(nearest("step", kNames), "steps");
  EXPECT_EQ(nearest("noise_mulitplier", kNames), "noise_multiplier");
  EXPECT_EQ(nearest("steps", kNames), "steps");
}

TEST(Nearest, SaysNothingWhereNothingIsClose) {
  EXPECT_EQ(nearest("learning_rate_of_adam", kNames), std::nullopt);
  EXPECT_EQ(nearest("xyz", kNames), std::nullopt);
  EXPECT_EQ(nearest("", kNames), std::nullopt);
  EXPECT_EQ(nearest("steps", {}), std::nullopt);
}

TEST(DidYouMean, IsAnEndingForAnErrorOrNothing) {
  EXPECT_EQ(did_you_mean("sampel_rate", kNames), "; did you mean 'sample_rate'?");
  EXPECT_EQ(did_you_mean("xyz", kNames), "");
}

TEST(ParseInt64, TakesWholeNumbersOnly) {
  EXPECT_EQ(parse_int64("0"), 0);
  EXPECT_EQ(parse_int64("-12"), -12);
  EXPECT_EQ(parse_int64("+12"), 12);
  EXPECT_EQ(parse_int64("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parse_int64("-9223372036854775808"), std::numeric_limits<std::int64_t>::min());
  for (const char* bad : {"", " 1", "1 ", "3.7", "1e3", "0x10", "9223372036854775808", "+-3", "--3",
                          "++3", "+", "-", "1_000", "one"})
    EXPECT_EQ(parse_int64(bad), std::nullopt) << "'" << bad << "'";
}

TEST(ParseDouble, TakesWholeNumbersOnly) {
  EXPECT_EQ(parse_double("1e-5"), 1e-5);
  EXPECT_EQ(parse_double("0.1"), 0.1);
  EXPECT_EQ(parse_double("+2"), 2.0);
  EXPECT_EQ(parse_double("-0.25"), -0.25);
  for (const char* bad : {"", " 1", "1 ", "0,5", "1.5x", "+-3", "+", ".", "1e999"})
    EXPECT_EQ(parse_double(bad), std::nullopt) << "'" << bad << "'";
}

TEST(ParseDouble, DoesNotDependOnTheLocale) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  for (const char* name : {"de_DE.UTF-8", "fr_FR.UTF-8"}) std::setlocale(LC_ALL, name);
  EXPECT_EQ(parse_double("0.5"), 0.5);
  EXPECT_EQ(parse_double("0,5"), std::nullopt);
  std::setlocale(LC_ALL, before.c_str());
}

TEST(HumanDuration, UsesTheTwoLargestUnits) {
  EXPECT_EQ(human_duration(0), "0.0 s");
  EXPECT_EQ(human_duration(1.5), "1.5 s");
  EXPECT_EQ(human_duration(60), "1 min 0 s");
  EXPECT_EQ(human_duration(200), "3 min 20 s");
  EXPECT_EQ(human_duration(3599.6), "1 h 0 min");
  EXPECT_EQ(human_duration(7500), "2 h 5 min");
}

TEST(HumanDuration, AdmitsThatItDoesNotKnow) {
  EXPECT_EQ(human_duration(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(human_duration(std::numeric_limits<double>::quiet_NaN()), "?");
  EXPECT_EQ(human_duration(-1), "?");
}

TEST(HumanBytes, UsesBinaryUnits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(1.5 * 1024 * 1024), "1.5 MiB");
  EXPECT_EQ(human_bytes(3e9), "2.8 GiB");
  EXPECT_EQ(human_bytes(5e15), "4547.5 TiB");
}

TEST(HtmlEscape, NoMarkupSurvives) {
  EXPECT_EQ(html_escape("<a href=\"x\">'&'</a>"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
  EXPECT_EQ(html_escape("plain ε"), "plain ε");
}

TEST(Hex, IsLowerCaseAndPadded) {
  const unsigned char bytes[] = {0x00, 0x0f, 0xa0, 0xff};
  EXPECT_EQ(hex(bytes), "000fa0ff");
}

TEST(UtcNow, HasTheFormOfIso8601) {
  EXPECT_TRUE(
      std::regex_match(utc_now(), std::regex(R"(20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\dZ)")))
      << utc_now();
}

}  // namespace
}  // namespace sfumato
