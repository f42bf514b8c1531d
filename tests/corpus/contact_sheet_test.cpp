#include "sfumato/corpus/contact_sheet.h"

#include <gtest/gtest.h>

#include <vector>

namespace sfumato {
namespace {

Image flat(int64_t height, int64_t width, int64_t channels, uint8_t value) {
  return {
      .height = height,
      .width = width,
      .channels = channels,
      .pixels = std::vector<uint8_t>(static_cast<std::size_t>(height * width * channels), value)};
}

TEST(ContactSheet, OneRowForEachClassUpToSixteenColumns) {
  const std::vector<int64_t> counts{20, 3, 0, 16};
  const auto rows = contact_sheet_rows(counts, 56);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].size(), 16u);
  EXPECT_EQ(rows[1].size(), 3u);
  EXPECT_EQ(rows[2].size(), 16u);
  EXPECT_EQ(rows[2].back(), (ImageId{3, 15}));
}

TEST(ContactSheet, OneClassFillsSeveralRows) {
  const std::vector<int64_t> forty{0, 40}, many{1000};
  const auto rows = contact_sheet_rows(forty, 56);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[2].size(), 8u);
  EXPECT_EQ(rows[2].back(), (ImageId{1, 39}));
  EXPECT_EQ(contact_sheet_rows(many, 56).size(), 8u);
}

TEST(ContactSheet, StaysOfASizeThatViewersTake) {
  const std::vector<int64_t> thousand(1000, 16), large{16, 16};
  const auto rows = contact_sheet_rows(thousand, 64);
  EXPECT_LE(static_cast<int64_t>(rows.size()) * 66 * (16 * 66 + 2), 16'000'000);
  EXPECT_GT(rows.size(), 100u);
  EXPECT_EQ(contact_sheet_rows(large, 1024).size(), 1u);  // at least one row
}

TEST(ContactSheet, PlacesAndEnlargesTiles) {
  const std::vector<std::vector<Image>> rows{{flat(2, 3, 3, 10), flat(2, 3, 3, 20)},
                                             {flat(2, 3, 3, 30)}};
  const Image sheet = contact_sheet(rows, 4);
  ASSERT_EQ(sheet.height, 2 + 2 * (8 + 2));
  ASSERT_EQ(sheet.width, 2 + 2 * (12 + 2));
  const auto at = [&](int64_t y, int64_t x) {
    return sheet.pixels[static_cast<std::size_t>((y * sheet.width + x) * 3)];
  };
  EXPECT_EQ(at(2, 2), 10);
  EXPECT_EQ(at(9, 13), 10);
  EXPECT_EQ(at(9, 14), 255);
  EXPECT_EQ(at(10, 13), 255);
  EXPECT_EQ(at(2, 16), 20);
  EXPECT_EQ(at(12, 2), 30);
  EXPECT_EQ(at(12, 16), 255);  // the short row ends in white
  EXPECT_EQ(at(0, 0), 255);
}

TEST(ContactSheet, SmallImagesAreEnlarged) {
  EXPECT_EQ(contact_sheet_scale(28), 2);
  EXPECT_EQ(contact_sheet_scale(32), 2);
  EXPECT_EQ(contact_sheet_scale(64), 1);
  EXPECT_EQ(contact_sheet_scale(256), 1);
}

}  // namespace
}  // namespace sfumato
