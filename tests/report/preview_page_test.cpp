#include "sfumato/report/preview_page.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/count_of.h"

namespace sfumato {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// Pictures of that many steps, newest first.
PreviewPage pictures(int count) {
  PreviewPage page{count * 100, count * 100, "", {}};
  for (int i = count; i > 0; --i) page.pictures.emplace_back(i * 100, fmt::format("{}.png", i));
  return page;
}

std::size_t place(const std::string& page, const std::string& text) {
  const std::size_t at = page.find(text);
  EXPECT_NE(at, page.npos) << text;
  return at;
}

TEST(PreviewPage, StartsWithAStripAlongTraining) {
  const std::string page = preview_page(pictures(3));
  EXPECT_LT(place(page, "href=\"#step-100\""), place(page, "href=\"#step-200\""));
  EXPECT_LT(place(page, "href=\"#step-200\""), place(page, "href=\"#step-300\""));
  EXPECT_LT(place(page, "href=\"#step-300\""), place(page, "id=\"step-300\"")) << "the strip first";
  EXPECT_LT(place(page, "id=\"step-300\""), place(page, "id=\"step-100\"")) << "the newest first";
  EXPECT_THAT(page, HasSubstr("<a href=\"#step-200\"><img src=\"2.png\""));
}

TEST(PreviewPage, AStripHoldsTheFirstTheLastAndFewBetween) {
  const std::string page = preview_page(pictures(1000));
  EXPECT_EQ(test::count_of(page, "href=\"#step-"), 12u);
  EXPECT_THAT(page, HasSubstr("href=\"#step-100\""));
  EXPECT_THAT(page, HasSubstr("href=\"#step-100000\""));
  EXPECT_EQ(test::count_of(page, "<figure"), 1000u);
}

TEST(PreviewPage, OnePictureIsNoStrip) {
  EXPECT_THAT(preview_page(pictures(1)), Not(HasSubstr("<ol")));
  EXPECT_THAT(preview_page(pictures(0)), Not(HasSubstr("<ol")));
}

}  // namespace
}  // namespace sfumato
