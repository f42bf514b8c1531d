// How many images of each class `sample` draws.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/corpus/sampling_model.h"

namespace sfumato {
namespace {

using testing::ElementsAre;

TEST(ImagesPerClass, SpreadsOrTakesCounts) {
  EXPECT_THAT(images_per_class({.count = 10}, 0), ElementsAre(10));
  EXPECT_THAT(images_per_class({.count = 11}, 4), ElementsAre(3, 3, 3, 2));
  EXPECT_THAT(images_per_class({.count = 2}, 4), ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(images_per_class({.count = 5, .only_class = 1}, 3), ElementsAre(0, 5, 0));
  EXPECT_THAT(images_per_class({.per_class = {1, 0, 7}}, 3), ElementsAre(1, 0, 7));
  EXPECT_THAT(images_per_class({.count = 8, .per_class = {1, 0, 7}}, 3), ElementsAre(1, 0, 7));
  for (const CountOptions& wrong :
       std::vector<CountOptions>{{},
                                 {.count = 0},
                                 {.count = -3},
                                 {.count = 9, .per_class = {1, 0, 7}},
                                 {.per_class = {1, 2}},
                                 {.per_class = {1, -2, 3}},
                                 {.count = 1, .only_class = 3},
                                 {.count = 1, .only_class = -1},
                                 {.count = 8, .only_class = 1, .per_class = {1, 0, 7}}})
    EXPECT_THROW(images_per_class(wrong, 3), UsageError);
  EXPECT_THROW(images_per_class({.count = 1, .only_class = 0}, 0), UsageError);
}

TEST(ImagesPerClass, LeavesOutWhatWasNotTrainedUnlessAsked) {
  const std::vector<bool> bird{false, true, false};
  EXPECT_THAT(images_per_class({.count = 5, .left_out = bird}, 3), ElementsAre(3, 0, 2));
  EXPECT_THAT(images_per_class({.count = 4, .left_out = bird}, 3, std::vector{0.25, 0.5, 0.25}),
              ElementsAre(2, 0, 2));
  EXPECT_THAT(images_per_class({.count = 3, .left_out = bird}, 3, std::vector{0.7, 0.3, 0.0}),
              ElementsAre(3, 0, 0));
  EXPECT_THAT(images_per_class({.count = 5, .only_class = 1, .left_out = bird}, 3),
              ElementsAre(0, 5, 0));
  EXPECT_THAT(images_per_class({.per_class = {1, 2, 3}, .left_out = bird}, 3),
              ElementsAre(1, 2, 3));
  EXPECT_THROW(images_per_class({.count = 5, .left_out = {true, true}}, 2), UsageError);
}

TEST(ImagesPerClass, FollowsProportionsByTheLargestRemainder) {
  const std::vector<double> thirds{0.5, 0.25, 0.25};
  EXPECT_THAT(images_per_class({.count = 8}, 3, thirds), ElementsAre(4, 2, 2));
  // Quotas 4.5, 2.25, 2.25: the largest remainder gets the one that is left.
  EXPECT_THAT(images_per_class({.count = 9}, 3, thirds), ElementsAre(5, 2, 2));
  // Quotas 2.5, 1.25, 1.25; equal remainders: the first class.
  EXPECT_THAT(images_per_class({.count = 5}, 3, thirds), ElementsAre(3, 1, 1));
  EXPECT_THAT(images_per_class({.count = 3}, 4, std::vector<double>{0.25, 0.25, 0.25, 0.25}),
              ElementsAre(1, 1, 1, 0));
  EXPECT_THAT(images_per_class({.count = 7}, 3, std::vector<double>{1, 0, 0}),
              ElementsAre(7, 0, 0));
  for (int64_t count = 1; count < 200; ++count) {
    const std::vector<double> odd{0.123, 0.777, 1 - 0.123 - 0.777};
    const auto counts = images_per_class({.count = count}, 3, odd);
    EXPECT_EQ(counts[0] + counts[1] + counts[2], count);
    for (std::size_t c = 0; c < 3; ++c)
      EXPECT_LT(std::abs(static_cast<double>(counts[c]) - odd[c] * static_cast<double>(count)), 1);
  }
  // What somebody asks for wins.
  EXPECT_THAT(images_per_class({.per_class = {1, 0, 7}}, 3, thirds), ElementsAre(1, 0, 7));
  EXPECT_THAT(images_per_class({.count = 5, .only_class = 1}, 3, thirds), ElementsAre(0, 5, 0));
  EXPECT_FALSE(takes_proportions({.per_class = {1, 0, 7}}, thirds));
  EXPECT_FALSE(takes_proportions({.count = 5, .only_class = 1}, thirds));
  EXPECT_FALSE(takes_proportions({.count = 5}, {}));
  EXPECT_TRUE(takes_proportions({.count = 5}, thirds));
  EXPECT_THROW(images_per_class({.count = 5}, 4, thirds), UsageError);
}

}  // namespace
}  // namespace sfumato
