#include "sfumato/data/batch.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "sfumato/core/error.h"
#include "sfumato/data/record_store_writer.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using test::TempFolder;

TEST(Gather, GivesChosenRecordsAsFloats) {
  TempFolder folder;
  RecordStoreWriter writer(folder / "store", {1, 2, 3, 0, {}, false, 1});
  const std::vector<std::uint8_t> first = {0, 255, 51, 102, 153, 204};
  const std::vector<std::uint8_t> second = {1, 2, 3, 4, 5, 6};
  writer.append(first, 0);
  writer.append(second, 0);
  writer.finish();
  const RecordStore store = RecordStore::open(folder / "store");
  const std::vector<std::int64_t> indices = {1, 0, 1};
  std::vector<float> out(18);
  gather(store, indices, out.data());
  const std::vector<float> expected_first = {-1.0f, 1.0f, -0.6f, -0.2f, 0.2f, 0.6f};
  for (int i = 0; i < 6; ++i) {
    EXPECT_FLOAT_EQ(out[i], static_cast<float>(second[i]) / 127.5f - 1.0f);
    EXPECT_NEAR(out[6 + i], expected_first[i], 1e-7);
    EXPECT_EQ(out[12 + i], out[i]);
  }
  const std::vector<std::int64_t> outside = {2};
  EXPECT_THROW(gather(store, outside, out.data()), DataError);
}

/// Against a picture that is first mirrored, then padded with its edges, then cut.
TEST(ConvertAugmented, FlipThenShiftWithRepeatedEdges) {
  EXPECT_TRUE(rc::check([] {
    const auto h = *rc::gen::inRange<std::int64_t>(1, 6);
    const auto w = *rc::gen::inRange<std::int64_t>(1, 6);
    const auto c = *rc::gen::element<std::int64_t>(1, 3);
    const Augmentation a{*rc::gen::arbitrary<bool>(), *rc::gen::inRange<std::int64_t>(-8, 9),
                         *rc::gen::inRange<std::int64_t>(-8, 9)};
    const auto image = *rc::gen::container<std::vector<std::uint8_t>>(
        static_cast<std::size_t>(h * w * c), rc::gen::arbitrary<std::uint8_t>());
    std::vector<float> out(image.size());
    convert_augmented(image, h, w, c, a, out.data());

    std::vector<std::uint8_t> mirrored = image;
    for (std::int64_t y = 0; a.flip && y < h; ++y)
      for (std::int64_t x = 0; x < w; ++x)
        for (std::int64_t k = 0; k < c; ++k)
          mirrored[(y * w + x) * c + k] = image[(y * w + (w - 1 - x)) * c + k];
    const std::int64_t pad = 8, pw = w + 2 * pad, ph = h + 2 * pad;
    std::vector<std::uint8_t> padded(static_cast<std::size_t>(pw * ph * c));
    for (std::int64_t y = 0; y < ph; ++y)
      for (std::int64_t x = 0; x < pw; ++x)
        for (std::int64_t k = 0; k < c; ++k) {
          const auto sy = std::max<std::int64_t>(0, std::min(h - 1, y - pad));
          const auto sx = std::max<std::int64_t>(0, std::min(w - 1, x - pad));
          padded[(y * pw + x) * c + k] = mirrored[(sy * w + sx) * c + k];
        }
    for (std::int64_t y = 0; y < h; ++y)
      for (std::int64_t x = 0; x < w; ++x)
        for (std::int64_t k = 0; k < c; ++k) {
          const int value = padded[((y + pad - a.dy) * pw + x + pad - a.dx) * c + k];
          RC_ASSERT(out[(y * w + x) * c + k] == static_cast<float>(value / 127.5 - 1.0));
        }
  }));
}

TEST(ConvertAugmented, RefusesWrongSizes) {
  std::vector<std::uint8_t> image(11);
  std::vector<float> out(12);
  EXPECT_THROW(convert_augmented(image, 2, 2, 3, {}, out.data()), DataError);
}

}  // namespace
}  // namespace sfumato
