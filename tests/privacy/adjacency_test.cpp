#include "sfumato/privacy/adjacency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "sfumato/core/error.h"
#include "sfumato/privacy/accountant.h"

namespace sfumato {
namespace {

TEST(Adjacency, NamesRoundTrip) {
  for (const Adjacency adjacency :
       {Adjacency::kAddRemove, Adjacency::kZeroOut, Adjacency::kReplaceOne})
    EXPECT_EQ(parse_enum<Adjacency>(to_string(adjacency)), adjacency);
}

TEST(Adjacency, MisspeltNameGetsTheNearest) {
  try {
    parse_enum<Adjacency>("zero-out");
    FAIL() << "accepted";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("did you mean 'zero_out'?"));
  }
}

TEST(Adjacency, OnlyReplaceOneDoublesTheSensitivity) {
  EXPECT_EQ(sensitivity_in_clip_norms(Adjacency::kAddRemove), 1);
  EXPECT_EQ(sensitivity_in_clip_norms(Adjacency::kZeroOut), 1);
  EXPECT_EQ(sensitivity_in_clip_norms(Adjacency::kReplaceOne), 2);
}

// Brute force over contributions without negative numbers, one of them removed or replaced.
TEST(Adjacency, ContributionsWithoutNegativeNumbersAreAtMostAtRightAngles) {
  double farthest = 0;
  for (int a = 0; a <= 90; ++a)
    for (int b = 0; b <= 90; ++b)
      for (const double norm : {0.0, 0.4, 1.0}) {
        const double x = std::cos(a * std::acos(-1.0) / 180),
                     y = std::sin(a * std::acos(-1.0) / 180),
                     u = norm * std::cos(b * std::acos(-1.0) / 180),
                     v = norm * std::sin(b * std::acos(-1.0) / 180);
        farthest = std::max(farthest, std::hypot(x - u, y - v));
      }
  const double bound =
      sensitivity_in_clip_norms(Adjacency::kReplaceOne, Contributions::kNonNegative);
  EXPECT_LE(farthest, bound);
  EXPECT_NEAR(farthest, bound, 1e-12);
  for (const Adjacency adjacency : {Adjacency::kAddRemove, Adjacency::kZeroOut})
    EXPECT_EQ(sensitivity_in_clip_norms(adjacency, Contributions::kNonNegative), 1);
}

TEST(Accountant, NamesBothAndHelpsWithTypos) {
  EXPECT_EQ(to_string(parse_enum<Accountant>("rdp")), "rdp");
  EXPECT_EQ(to_string(parse_enum<Accountant>("pld")), "pld");
  EXPECT_THROW(parse_enum<Accountant>("moments"), UsageError);
}

TEST(Accountant, StatementCarriesWhatItWasAskedFor) {
  const std::vector<PrivacyEvent> events = {Phase{0.04, 1.5, 2250}};
  const auto rdp = account_epsilon(Accountant::kRdp, events, 1e-5, Adjacency::kZeroOut);
  EXPECT_NEAR(rdp.epsilon, 7.328350, 1e-5);
  EXPECT_FALSE(rdp.epsilon_lower.has_value());
  EXPECT_EQ(rdp.adjacency, Adjacency::kZeroOut);
  EXPECT_NEAR(rdp.order.value(), 3.94, 0.01);
  EXPECT_NEAR(account_delta(Accountant::kRdp, events, rdp.epsilon, Adjacency::kZeroOut).delta, 1e-5,
              1e-10);
  const auto pld = account_epsilon(Accountant::kPld, events, 1e-5, Adjacency::kZeroOut);
  EXPECT_FALSE(pld.order.has_value());
  EXPECT_LE(pld.epsilon_lower.value(), pld.epsilon);
  EXPECT_GT(pld.grid.value(), 0);
  const auto back = account_delta(Accountant::kPld, events, pld.epsilon, Adjacency::kZeroOut);
  EXPECT_NEAR(back.delta, 1e-5, 1e-8);
  EXPECT_LE(back.delta_lower.value(), back.delta);
}

}  // namespace
}  // namespace sfumato
