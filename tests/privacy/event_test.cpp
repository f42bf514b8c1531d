#include "sfumato/privacy/event.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

TEST(PrivacyEvent, TextReadsBackToTheSameText) {
  for (const char* text :
       {"0.01:1.1:1000", "0.1:0.7:20:60000:800", "gaussian:1:50:3", "approximate:0.5:1e-07:10"})
    EXPECT_EQ(to_text(parse_event(text)), text);
  EXPECT_EQ(to_text(parse_event("gaussian:1.5:50")), "gaussian:1.5:50:1");
  EXPECT_EQ(std::get<Phase>(parse_event("0.1:1:1", 4)).records_per_unit, 4);
}

TEST(PrivacyEvent, JsonReadsBackToTheSameText) {
  for (const char* text :
       {"0.01:1.1:1000", "0.1:0.7:20:60000:800", "gaussian:1:50:3", "approximate:0.5:1e-07:10"}) {
    const PrivacyEvent event = parse_event(text);
    EXPECT_EQ(to_text(event_from_json(nlohmann::json(to_json(event)))), text);
  }
}

TEST(PrivacyEvent, BadTextShowsTheForms) {
  for (const char* text : {"", "gaussian", "gaussian:1", "gaussian:1:2:x", "approximate:1:2:3:4",
                           "laplace:1:2", "0.1:1", "0.1:1:2:3", "0.1:1:2:x:4"}) {
    try {
      parse_event(text);
      FAIL() << text;
    } catch (const UsageError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("0.01:1.1:1000")) << text;
    }
  }
}

TEST(PrivacyEvent, BadJsonIsRefused) {
  for (const char* text :
       {"3", "{}", R"({"mechanism":"laplace"})", R"({"mechanism":"gaussian","sensitivity_l2":1})",
        R"({"mechanism":"sampled_gaussian","sample_rate":"x"})",
        R"({"mechanism":"approximate_dp","epsilon":1,"delta":0,"count":1.5})"})
    EXPECT_THROW(event_from_json(nlohmann::json::parse(text)), DataError) << text;
}

TEST(PrivacyEvent, NumbersOutOfRangeAreRefused) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const auto zero_out = Adjacency::kZeroOut;
  const PrivacyEvent bad[] = {GaussianRelease{-1, 1},
                              GaussianRelease{inf, 1},
                              GaussianRelease{1, -1},
                              GaussianRelease{1, nan},
                              GaussianRelease{1, 1, -1},
                              ApproximateRelease{-1, 0},
                              ApproximateRelease{nan, 0},
                              ApproximateRelease{1, -0.1},
                              ApproximateRelease{1, 1.1},
                              ApproximateRelease{1, 0, -1},
                              Phase{0.1, 1, 1, 1, Truncation{0, 1}}};
  for (const PrivacyEvent& event : bad) EXPECT_THROW(check_event(event, zero_out), UsageError);
  const Phase cut{0.1, 1, 1, 1, Truncation{10, 5}};
  check_event(cut, zero_out);
  EXPECT_THROW(check_event(cut, Adjacency::kAddRemove), PrivacyError);
}

TEST(PrivacyEvent, RepetitionSaturates) {
  EXPECT_EQ(std::get<Phase>(repeated(Phase{0.1, 1, 7}, 3)).steps, 21);
  EXPECT_EQ(std::get<GaussianRelease>(repeated(GaussianRelease{1, 1, 2}, 3)).count, 6);
  const auto most = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(std::get<ApproximateRelease>(repeated(ApproximateRelease{1, 0, most}, 2)).count, most);
}

}  // namespace
}  // namespace sfumato
