// Which public classes an image lies nearest to: against plain loops over pixels, one image at a
// time.
#include "sfumato/features/class_means.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/features/image_features.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using Pixels = std::vector<std::uint8_t>;

/// Pixels, and how many images were asked about together.
class CountingPixels : public FeatureNetwork {
 public:
  explicit CountingPixels(std::vector<int64_t>& batches, double factor = 1)
      : FeatureNetwork({}), batches_(batches), factor_(factor) {
    facts_.dimension = 4;
  }
  int64_t image_bytes() const override { return 64; }
  FeatureBatch operator()(const at::Tensor& images) const override {
    batches_.push_back(images.size(0));
    return {ImageFeatures(FeatureSpace::kPixels, {1, 2, 2})(images) * factor_, {}};
  }

 private:
  std::vector<int64_t>& batches_;
  double factor_;
};

class ClassMeansTest : public ::testing::Test {
 protected:
  /// Class 2 has no image.
  RecordStore store(int64_t classes = 4) {
    RecordStoreWriter writer(
        folder / "store",
        {2, 2, 1, classes,
         classes > 0 ? std::vector<std::string>{"a", "b", "c", "d"} : std::vector<std::string>{},
         false, 1});
    for (const auto& [pixels, label] : images) writer.append(pixels, classes > 0 ? label : 0);
    writer.finish({{"note", "made by a test"}});
    return RecordStore::open(folder / "store");
  }
  const std::vector<std::pair<Pixels, int>> images = {{{0, 0, 0, 0}, 0},   {{20, 0, 0, 8}, 0},
                                                      {{200, 0, 0, 9}, 1}, {{250, 10, 0, 0}, 1},
                                                      {{0, 90, 90, 0}, 3}, {{10, 0, 0, 4}, 3}};
  test::TempFolder folder;
  std::vector<int64_t> batches;
};

TEST_F(ClassMeansTest, NearestAreThoseOfPlainLoops) {
  const ClassMeans means(std::make_unique<CountingPixels>(batches), store());
  EXPECT_EQ(means.sizes(), (std::vector<int64_t>{2, 2, 0, 2}));
  EXPECT_EQ(means.populated(), 3);
  for (int seed = 0; seed < 200; ++seed) {
    Pixels image;
    for (int p = 0; p < 4; ++p) image.push_back(static_cast<uint8_t>((seed * 37 + p * 91) % 256));
    std::vector<std::pair<double, int64_t>> order;
    for (const int label : {0, 1, 3}) {
      double squares = 0;
      for (size_t p = 0; p < 4; ++p) {
        double mean = 0;
        for (const auto& [pixels, its] : images) mean += its == label ? pixels[p] / 2.0 : 0;
        squares += (image[p] - mean) * (image[p] - mean);
      }
      order.emplace_back(squares, label);
    }
    std::ranges::sort(order);
    EXPECT_EQ(means.nearest(image, 3),
              (std::vector<int64_t>{order[0].second, order[1].second, order[2].second}));
    EXPECT_EQ(means.nearest(image, 1), std::vector<int64_t>{order[0].second});
  }
}

// In a batch the rounding of one image may hang on how many others there are.
TEST_F(ClassMeansTest, AnImageIsAskedAboutAlone) {
  const ClassMeans means(std::make_unique<CountingPixels>(batches), store());
  batches.clear();
  for (int i = 0; i < 5; ++i) (void)means.nearest(Pixels{1, 2, 3, 4}, 2);
  EXPECT_EQ(batches, std::vector<int64_t>(5, 1));
}

TEST_F(ClassMeansTest, OfEqualDistancesTheLowerLabelIsFirst) {
  const ClassMeans means(std::make_unique<CountingPixels>(batches, 0.0), store());
  EXPECT_EQ(means.nearest(Pixels{9, 9, 9, 9}, 3), (std::vector<int64_t>{0, 1, 3}));
}

TEST_F(ClassMeansTest, WhatCannotBeAskedIsRefused) {
  const RecordStore four = store();
  const ClassMeans means(std::make_unique<CountingPixels>(batches), four);
  EXPECT_THROW((void)means.nearest(Pixels{1, 2, 3, 4}, 4), UsageError) << "one class is empty";
  EXPECT_THROW((void)means.nearest(Pixels{1, 2, 3, 4}, 0), UsageError);
  EXPECT_THROW(ClassMeans(std::make_unique<CountingPixels>(batches, 1.0 / 0.0), four), DataError);
  std::filesystem::remove_all(folder / "store");
  EXPECT_THROW(ClassMeans(std::make_unique<CountingPixels>(batches), store(0)), UsageError);
}

}  // namespace
}  // namespace sfumato
