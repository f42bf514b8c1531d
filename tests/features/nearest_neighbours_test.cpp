#include "sfumato/features/nearest_neighbours.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "audit/small_images.h"
#include "sfumato/core/error.h"
#include "sfumato/features/image_features.h"
#include "support/every_name.h"
#include "support/temp_folder.h"
#include "support/thread_ranks.h"

namespace sfumato {
namespace {

class Rows : public FeatureRows {
 public:
  explicit Rows(at::Tensor values) : values_(std::move(values)) {}
  int64_t count() const override { return values_.size(0); }
  int64_t dimension() const override { return values_.size(1); }
  at::Tensor rows(std::span<const int64_t> indices) const override {
    return values_.index_select(
        0, at::tensor(at::ArrayRef<int64_t>(indices.data(), indices.size()), at::kLong));
  }

 private:
  at::Tensor values_;
};

/// Every distance, in double precision, sorted.
/// Counts the rows that it was asked for.
class CountedRows : public Rows {
 public:
  using Rows::Rows;
  at::Tensor rows(std::span<const int64_t> indices) const override {
    made += std::ssize(indices);
    return Rows::rows(indices);
  }
  mutable int64_t made = 0;
};

std::vector<Neighbour> all_neighbours(const at::Tensor& query, const at::Tensor& references,
                                      int64_t own) {
  const at::Tensor distances =
      (references.to(at::kDouble) - query.to(at::kDouble)).square().sum(1).sqrt();
  std::vector<Neighbour> found;
  for (int64_t i = 0; i < references.size(0); ++i)
    if (i != own) found.push_back({distances[i].item<double>(), i});
  std::sort(found.begin(), found.end(),
            [](const Neighbour& a, const Neighbour& b) { return a.distance < b.distance; });
  return found;
}

TEST(NearestNeighbours, AreThoseOfTheWholeDistanceMatrix) {
  const at::Tensor references = at::randn({150, 7}), queries = at::randn({40, 7});
  for (const int64_t tile : {1, 37, 150, 0})
    for (const bool with_own : {false, true}) {
      std::vector<int64_t> own;
      for (int64_t i = 0; i < 40; ++i) own.push_back(3 * i);
      const auto found = nearest_neighbours(queries, Rows(references), 12,
                                            with_own ? own : std::vector<int64_t>(), nullptr, tile);
      ASSERT_EQ(found.size(), 40u);
      for (std::size_t i = 0; i < found.size(); ++i) {
        const auto wanted =
            all_neighbours(queries[static_cast<int64_t>(i)], references, with_own ? own[i] : -1);
        ASSERT_EQ(found[i].size(), 12u);
        for (std::size_t j = 0; j < 12; ++j) {
          EXPECT_EQ(found[i][j].index, wanted[j].index);
          EXPECT_NEAR(found[i][j].distance, wanted[j].distance, 1e-5);
        }
      }
    }
}

TEST(NearestNeighbours, HaveTheSameBitsForEveryNumberOfRanks) {
  at::set_num_threads(1);
  const at::Tensor references = at::randn({150, 7});
  const at::Tensor queries = at::cat({references.narrow(0, 5, 20), at::randn({20, 7})});
  const std::vector<int64_t> own(40, 9);
  for (const int64_t tile : {7, 40, 200}) {
    const auto alone = nearest_neighbours(queries, Rows(references), 12, own, nullptr, tile);
    for (const int64_t size : {1, 2, 3, 5}) {
      test::ThreadRanks(size).run_well([&](const std::shared_ptr<Communicator>& ranks) {
        at::set_num_threads(1);
        const CountedRows rows(references);
        const auto found = nearest_neighbours(queries, rows, 12, own, ranks.get(), tile);
        ASSERT_EQ(found.size(), alone.size());
        for (std::size_t i = 0; i < found.size(); ++i) {
          ASSERT_EQ(found[i].size(), 12u);
          for (std::size_t j = 0; j < 12; ++j) {
            EXPECT_EQ(found[i][j].index, alone[i][j].index) << size;
            EXPECT_EQ(std::bit_cast<int64_t>(found[i][j].distance),
                      std::bit_cast<int64_t>(alone[i][j].distance))
                << size;
          }
        }
        // Of 150 references, and 40 queries by 4 that are looked at again, by whole tiles.
        if (tile == 7) {
          EXPECT_LE(rows.made, (150 + 160) / size + 2 * 7) << "no rank does it all";
        }
      });
    }
  }
}

TEST(NearestNeighbours, ACopyIsAtDistanceZeroAndANearCopyIsMeasuredWell) {
  // Norms of a thousand: the difference of squares alone would be off by a quarter.
  const at::Tensor references = 300 * at::randn({20, 12});
  at::Tensor queries = references.narrow(0, 3, 2).clone();
  queries[1] += 1e-2;
  const auto found = nearest_neighbours(queries, Rows(references), 5);
  EXPECT_EQ(found[0].front().index, 3);
  EXPECT_EQ(found[0].front().distance, 0);
  EXPECT_EQ(found[1].front().index, 4);
  EXPECT_NEAR(found[1].front().distance, 1e-2 * std::sqrt(12.0), 1e-3);
}

TEST(NearestNeighbours, FewerReferencesThanAskedForGiveAllOfThem) {
  const at::Tensor references = at::randn({4, 3});
  const std::vector<int64_t> own = {2};
  EXPECT_EQ(nearest_neighbours(references.narrow(0, 2, 1), Rows(references), 9)[0].size(), 4u);
  const auto others = nearest_neighbours(references.narrow(0, 2, 1), Rows(references), 9, own)[0];
  std::set<int64_t> indices;
  for (const Neighbour& one : others) indices.insert(one.index);
  EXPECT_EQ(indices, (std::set<int64_t>{0, 1, 3}));
  EXPECT_THROW(nearest_neighbours(at::randn({1, 2}), Rows(references), 1), UsageError);
  EXPECT_THROW(nearest_neighbours(references.narrow(0, 0, 1), Rows(references.narrow(0, 0, 1)), 1,
                                  std::vector<int64_t>{0}),
               UsageError);
}

// Features ----------------------------------------------------------------------------------------

at::Tensor bytes_of(const std::vector<test::Pixels>& images, int64_t side) {
  at::Tensor out = at::empty({std::ssize(images), side, side, 1}, at::kByte);
  auto* at = out.mutable_data_ptr<std::uint8_t>();
  for (const test::Pixels& image : images) at = std::copy(image.begin(), image.end(), at);
  return out;
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).square().sum().sqrt().item<double>();
}

TEST(ImageFeatures, SpacesHaveTheirOwnNames) {
  test::expect_every_enumerator_named<FeatureSpace>();
}

TEST(ImageFeatures, PixelsRunFromZeroToOne) {
  const ImageFeatures features(FeatureSpace::kPixels, {1, 1, 2});
  const at::Tensor found = features(at::tensor({0, 255}, at::kByte).view({1, 1, 2, 1}));
  EXPECT_EQ(found[0][0].item<float>(), 0);
  EXPECT_EQ(found[0][1].item<float>(), 1);
}

TEST(ImageFeatures, ConvolutionsAreTheSameForEveryBatchAndEveryObject) {
  const ImageFeatures features(FeatureSpace::kConvolution, {1, 32, 32});
  EXPECT_EQ(features.dimension(), 3 * 24 * 16);
  // More than fit into one part (32 MiB of responses hold 341).
  const at::Tensor images = bytes_of(test::random_images(400, 1, 32), 32);
  const at::Tensor together = features(images);
  EXPECT_EQ(together.size(1), features.dimension());
  const ImageFeatures again(FeatureSpace::kConvolution, {1, 32, 32});
  for (const int64_t i : {0, 340, 341, 399})
    EXPECT_LT(distance(again(images.narrow(0, i, 1))[0], together[i]), 1e-4);
}

/// Distance from an image to `changed`, in distances to another image.
double relative(FeatureSpace space, const test::Pixels& changed) {
  const auto images = test::random_images(2, 5, 16);
  const ImageFeatures features(space, {1, 16, 16});
  const at::Tensor found = features(bytes_of({images[0], changed, images[1]}, 16));
  return distance(found[0], found[1]) / distance(found[0], found[2]);
}

TEST(ImageFeatures, ConvolutionsDoNotSeeBrightnessOrContrast) {
  test::Pixels dull = test::random_images(1, 5, 16)[0];
  for (auto& pixel : dull) pixel = static_cast<std::uint8_t>(90 + pixel / 2);
  EXPECT_LT(relative(FeatureSpace::kConvolution, dull), 0.03);
  EXPECT_GT(relative(FeatureSpace::kPixels, dull), 0.3);
  EXPECT_EQ(ImageFeatures(FeatureSpace::kConvolution, {1, 16, 16}).dimension(), 2 * 24 * 16);
  const ImageFeatures features(FeatureSpace::kConvolution, {1, 24, 24});
  EXPECT_LT(features(at::full({1, 24, 24, 1}, 200, at::kByte)).abs().max().item<float>(), 0.05);
}

TEST(ImageFeatures, ConvolutionsSeeOtherContent) {
  test::Pixels mirrored = test::random_images(1, 5, 16)[0];
  for (std::size_t row = 0; row < 16; ++row)
    std::reverse(mirrored.begin() + 16 * static_cast<std::ptrdiff_t>(row),
                 mirrored.begin() + 16 * static_cast<std::ptrdiff_t>(row + 1));
  EXPECT_GT(relative(FeatureSpace::kConvolution, mirrored), 0.5);
}

TEST(ImageFeatures, NamesAreKnown) {
  for (const auto space : {FeatureSpace::kPixels, FeatureSpace::kConvolution})
    EXPECT_EQ(parse_enum<FeatureSpace>(to_string(space)), space);
  EXPECT_THROW(parse_enum<FeatureSpace>("pixel"), UsageError);
}

}  // namespace
}  // namespace sfumato
