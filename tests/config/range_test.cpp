#include "sfumato/config/range.h"

#include <gtest/gtest.h>

#include <limits>

namespace sfumato {
namespace {

bool inside(const Range& range, double value) { return !range.mistake(value).has_value(); }

TEST(Range, EndsAreInsideOrOutsideAsNamed) {
  EXPECT_TRUE(inside(at_least(2), 2));
  EXPECT_FALSE(inside(at_least(2), 1.999));
  EXPECT_FALSE(inside(greater_than(0), 0));
  EXPECT_TRUE(inside(greater_than(0), 1e-300));
  EXPECT_TRUE(inside(between(0, 1), 0));
  EXPECT_TRUE(inside(between(0, 1), 1));
  EXPECT_FALSE(inside(between(0, 1), 1.0000001));
  EXPECT_TRUE(inside(from_below(0, 1), 0));
  EXPECT_FALSE(inside(from_below(0, 1), 1));
  EXPECT_FALSE(inside(above_up_to(0, 1), 0));
  EXPECT_TRUE(inside(above_up_to(0, 1), 1));
  EXPECT_FALSE(inside(strictly_between(0, 1), 0));
  EXPECT_FALSE(inside(strictly_between(0, 1), 1));
  EXPECT_TRUE(inside(strictly_between(0, 1), 0.5));
}

TEST(Range, NanAndInfinityAreNeverInside) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Range& range : {any_value(), at_least(0), greater_than(0), between(0, 1)}) {
    EXPECT_FALSE(inside(range, std::numeric_limits<double>::quiet_NaN()));
    EXPECT_FALSE(inside(range, infinity));
    EXPECT_FALSE(inside(range, -infinity));
  }
}

TEST(Range, Words) {
  const Range range = one_of({"ddpm", "ddim"});
  EXPECT_FALSE(range.mistake(std::string_view("ddim")));
  EXPECT_EQ(*range.mistake(std::string_view("dddim")),
            "must be one of ddpm, ddim, got 'dddim'; did you mean 'ddim'?");
  EXPECT_TRUE(not_empty().mistake(std::string_view("")));
  EXPECT_FALSE(not_empty().mistake(std::string_view("x")));
}

TEST(Range, ChoicesOfNumbers) {
  EXPECT_TRUE(inside(one_of({"1", "3"}), 3));
  EXPECT_FALSE(inside(one_of({"1", "3"}), 2));
}

TEST(Range, Descriptions) {
  EXPECT_EQ(any_value().describe(), "");
  EXPECT_EQ(at_least(0).describe(), "at least 0");
  EXPECT_EQ(greater_than(0).describe(), "greater than 0");
  EXPECT_EQ(between(4, 1024).describe(), "between 4 and 1024");
  EXPECT_EQ(from_below(0, 1).describe(), "at least 0 and less than 1");
  EXPECT_EQ(above_up_to(0, 1).describe(), "greater than 0 and at most 1");
  EXPECT_EQ(strictly_between(0, 1).describe(), "greater than 0 and less than 1");
  EXPECT_EQ(one_of({"a", "b"}).describe(), "one of a, b");
  EXPECT_EQ(*between(4, 1024).mistake(3.0), "must be between 4 and 1024, got 3");
}

}  // namespace
}  // namespace sfumato
