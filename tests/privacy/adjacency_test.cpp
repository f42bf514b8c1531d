#include "sfumato/privacy/adjacency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sfumato/core/error.h"
#include "sfumato/privacy/accountant.h"

namespace sfumato {
namespace {

TEST(Adjacency, NamesRoundTrip) {
  for (const Adjacency adjacency :
       {Adjacency::kAddRemove, Adjacency::kZeroOut, Adjacency::kReplaceOne})
    EXPECT_EQ(parse_adjacency(to_string(adjacency)), adjacency);
}

TEST(Adjacency, MisspeltNameGetsTheNearest) {
  try {
    parse_adjacency("zero-out");
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

TEST(Accountant, OnlyRdpExists) {
  EXPECT_EQ(to_string(parse_accountant("rdp")), "rdp");
  EXPECT_THROW(parse_accountant("pld"), UsageError);
  EXPECT_THROW(parse_accountant("moments"), UsageError);
}

TEST(Accountant, StatementCarriesWhatItWasAskedFor) {
  const Phase phase{0.04, 1.5, 2250};
  const auto statement =
      account_epsilon(Accountant::kRdp, std::span(&phase, 1), 1e-5, Adjacency::kZeroOut);
  EXPECT_NEAR(statement.epsilon, 7.328350, 1e-5);
  EXPECT_FALSE(statement.epsilon_lower.has_value());
  EXPECT_EQ(statement.adjacency, Adjacency::kZeroOut);
  EXPECT_NEAR(statement.order.value(), 3.94, 0.01);
  const auto back =
      account_delta(Accountant::kRdp, std::span(&phase, 1), statement.epsilon, Adjacency::kZeroOut);
  EXPECT_NEAR(back.delta, 1e-5, 1e-10);
}

}  // namespace
}  // namespace sfumato
