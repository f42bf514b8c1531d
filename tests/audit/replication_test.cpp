#include "sfumato/audit/replication.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "audit/small_images.h"
#include "sfumato/audit/replication_report.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/features/corpus_images.h"
#include "sfumato/io/tar.h"
#include "support/count_of.h"
#include "support/error_message.h"
#include "support/temp_folder.h"
#include "support/thread_ranks.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using test::count_of;
using test::error_message;
using test::Pixels;
using test::random_images;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kSide = 16;

std::string png_of(const Pixels& pixels) { return encode_png({kSide, kSide, 1, pixels}); }

void write_corpus(const fs::path& folder, const std::vector<Pixels>& images) {
  fs::create_directories(folder / "images/0");
  for (std::size_t i = 0; i < images.size(); ++i)
    std::ofstream(folder / fmt::format("images/0/{:06}.png", i), std::ios::binary)
        << png_of(images[i]);
}

Pixels noised(Pixels image, int amount, unsigned seed) {
  std::mt19937_64 random(seed);
  for (auto& pixel : image) {
    const int noise = static_cast<int>(random() % static_cast<unsigned>(2 * amount + 1)) - amount;
    pixel = static_cast<std::uint8_t>(std::clamp(pixel + noise, 0, 255));
  }
  return image;
}

/// 120 private images; a corpus of 60 others with copies of records 7, 8 and 9 planted in front.
class ReplicationTest : public testing::Test {
 protected:
  ReplicationTest()
      : records_(random_images(120, 1, kSide)),
        store_(test::write_store(folder_ / "store", records_, kSide)),
        holdout_(test::write_store(folder_ / "holdout", random_images(200, 2, kSide), kSide)) {
    at::set_num_threads(1);
    auto images = random_images(60, 3, kSide);
    write_corpus(folder_ / "clean", images);
    images.insert(images.begin(),
                  {records_[7], noised(records_[8], 6, 1), noised(records_[9], 12, 2)});
    write_corpus(folder_ / "copied", images);
    write_shards(folder_ / "shards", images);
  }

  static void write_shards(const fs::path& folder, const std::vector<Pixels>& images) {
    fs::create_directories(folder);
    for (std::size_t shard = 0; shard < 2; ++shard) {
      TarWriter writer(folder / fmt::format("shard-{:06}.tar", shard));
      for (std::size_t i = shard == 0 ? 0 : 40; i < (shard == 0 ? 40 : images.size()); ++i) {
        writer.add(fmt::format("0-{:06}.png", i), png_of(images[i]));
        writer.add(fmt::format("0-{:06}.cls", i), "0");
      }
      writer.finish();
    }
  }

  test::TempFolder folder_;
  std::vector<Pixels> records_;
  RecordStore store_, holdout_;
};

TEST_F(ReplicationTest, PlantedCopiesAreFoundExactAndNoised) {
  for (const bool with_holdout : {true, false}) {
    const auto audit =
        audit_replication(folder_ / "copied", store_, with_holdout ? &holdout_ : nullptr, {});
    ASSERT_EQ(audit.names.size(), 63u);
    EXPECT_EQ(audit.names[1], "images/0/000001.png");
    ASSERT_EQ(audit.results.size(), 2u);
    for (const ReplicationResult& result : audit.results) {
      for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(result.synthetic[i].record, 7 + static_cast<int64_t>(i));
        EXPECT_TRUE(result.is_copy(i)) << to_string(result.space) << " " << i;
      }
      EXPECT_EQ(result.synthetic[0].distance, 0);
      EXPECT_EQ(result.synthetic[0].ratio, 0);
      EXPECT_GE(result.by_ratio.copies.hits, 3);
      EXPECT_LE(result.by_ratio.copies.hits, 5);
      EXPECT_GT(result.by_ratio.copies.lower, result.by_ratio.expected_share);
      EXPECT_THAT(nearest_images(result, 3), ElementsAre(0, 1, 2));
    }
  }
}

TEST_F(ReplicationTest, SeveralRanksFindWhatOneProcessFinds) {
  // So many that ranks have tiles to share.
  const RecordStore many =
      test::write_store(folder_ / "many", random_images(2300, 4, kSide), kSide);
  const auto page = [&](int64_t size, bool with_holdout) {
    std::vector<std::string> pages(static_cast<std::size_t>(size));
    test::ThreadRanks(size).run_well([&](const std::shared_ptr<Communicator>& ranks) {
      at::set_num_threads(1);
      const auto audit = audit_replication(folder_ / "copied", many,
                                           with_holdout ? &holdout_ : nullptr, {}, ranks.get());
      pages[static_cast<std::size_t>(ranks->rank())] =
          to_json(audit).dump() + replication_csv(audit) + replication_html(audit, {});
    });
    for (const std::string& one : pages) EXPECT_EQ(one, pages.front());
    return pages.front();
  };
  for (const bool with_holdout : {true, false}) {
    const std::string alone = page(1, with_holdout);
    for (const int64_t size : {2, 3}) EXPECT_EQ(page(size, with_holdout), alone) << size;
  }
}

TEST_F(ReplicationTest, SeveralRanksRefuseUnlikeCorpora) {
  for (const std::exception_ptr& error :
       test::ThreadRanks(2).run([&](const std::shared_ptr<Communicator>& ranks) {
         (void)audit_replication(folder_ / (ranks->leads() ? "clean" : "copied"), store_, &holdout_,
                                 {}, ranks.get());
       })) {
    ASSERT_TRUE(error);
    EXPECT_THAT(error_message<UsageError>([&] { std::rethrow_exception(error); }),
                HasSubstr("the corpus of rank 1"));
  }
}

TEST_F(ReplicationTest, IndependentImagesAreNoCopies) {
  const auto audit = audit_replication(folder_ / "clean", store_, &holdout_, {});
  for (const ReplicationResult& result : audit.results) {
    for (const NullComparison* comparison : {&result.by_distance, &result.by_ratio}) {
      EXPECT_LE(comparison->copies.lower, comparison->expected_share);
      EXPECT_LT(std::abs(comparison->z), 3.5);
      EXPECT_GT(comparison->p_value, 1e-3);
    }
    EXPECT_LE(result.authentic.lower, result.null_authentic.upper);
    EXPECT_GE(result.authentic.upper, result.null_authentic.lower);
    EXPECT_EQ(result.null_in_store, 0);
  }
}

TEST_F(ReplicationTest, ACorpusOfCopiesHasAVeryNegativeZAndNoAuthenticImage) {
  std::vector<Pixels> copies;
  for (unsigned i = 0; i < 50; ++i) copies.push_back(noised(records_[i], 10, i));
  write_corpus(folder_ / "copies", copies);
  for (const auto& result : audit_replication(folder_ / "copies", store_, &holdout_, {}).results) {
    EXPECT_LT(result.by_distance.z, -8);
    EXPECT_LT(result.by_distance.p_value, 1e-15);
    EXPECT_EQ(result.by_distance.copies.hits, 50);
    EXPECT_EQ(result.authentic.hits, 0);
    EXPECT_GT(result.null_authentic.value, 0.2);
  }
}

TEST_F(ReplicationTest, DistancesAreThoseOfPixels) {
  ReplicationOptions options;
  options.spaces = {FeatureSpace::kPixels};
  const auto audit = audit_replication(folder_ / "copied", store_, nullptr, options);
  const auto images = random_images(60, 3, kSide);
  for (std::size_t i = 0; i < 10; ++i) {  // the first ten after the planted ones
    std::vector<double> distances;
    for (const Pixels& record : records_) {
      double sum = 0;
      for (std::size_t p = 0; p < record.size(); ++p)
        sum += std::pow((images[i][p] - record[p]) / 255.0, 2);
      distances.push_back(std::sqrt(sum));
    }
    const auto nearest = std::min_element(distances.begin(), distances.end());
    const NearestRecord& found = audit.results[0].synthetic[i + 3];
    EXPECT_EQ(found.record, nearest - distances.begin());
    EXPECT_NEAR(found.distance, *nearest, 1e-5);
    std::sort(distances.begin(), distances.end());
    const double next = std::accumulate(distances.begin() + 1, distances.begin() + 51, 0.0) / 50;
    EXPECT_NEAR(found.ratio, distances[0] / next, 1e-4);
  }
  // In the null no record is compared with itself.
  for (const NearestRecord& one : audit.results[0].null) EXPECT_GT(one.distance, 1);
}

TEST_F(ReplicationTest, ShardsGiveWhatTheFolderGives) {
  const auto folder = audit_replication(folder_ / "copied", store_, &holdout_, {});
  const auto shards = audit_replication(folder_ / "shards", store_, &holdout_, {});
  EXPECT_EQ(shards.names[62], "shard-000001.tar/0-000062.png");
  for (std::size_t space = 0; space < 2; ++space) {
    ASSERT_EQ(shards.results[space].synthetic.size(), 63u);
    for (std::size_t i = 0; i < 63; ++i) {
      EXPECT_EQ(shards.results[space].synthetic[i].record,
                folder.results[space].synthetic[i].record);
      EXPECT_EQ(shards.results[space].synthetic[i].distance,
                folder.results[space].synthetic[i].distance);
    }
  }
}

TEST_F(ReplicationTest, HoldoutImagesThatAreInTheStoreAreLeftOut) {
  auto mixed = random_images(100, 2, kSide);
  mixed[5] = records_[0];
  const RecordStore holdout = test::write_store(folder_ / "mixed", mixed, kSide);
  const auto audit = audit_replication(folder_ / "clean", store_, &holdout, {});
  for (const ReplicationResult& result : audit.results) {
    EXPECT_EQ(result.null_in_store, 1);
    EXPECT_EQ(result.null.size(), 99u);
    EXPECT_GT(result.by_distance.threshold, 0);
  }
  EXPECT_THAT(audit.warnings[0], HasSubstr("1 real images"));
  const RecordStore inside =
      test::write_store(folder_ / "inside", {records_[0], records_[1]}, kSide);
  EXPECT_THROW(audit_replication(folder_ / "clean", store_, &inside, {}), UsageError);
}

TEST_F(ReplicationTest, PicturesAppearOnlyWhenAskedFor) {
  ReplicationOptions options;
  options.spaces = {FeatureSpace::kPixels};
  for (const char* corpus : {"copied", "shards"}) {
    const auto audit = audit_replication(folder_ / corpus, store_, &holdout_, options);
    const std::string plain = replication_html(audit, {});
    EXPECT_EQ(count_of(plain, "<img"), 0u);
    EXPECT_THAT(plain, HasSubstr("no evidence of differential privacy"));
    EXPECT_THAT(plain, Not(HasSubstr("http:")));
    const auto nearest = nearest_images(audit.results[0], kShownImages);
    const auto pairs =
        picture_pairs(audit, audit.results[0], nearest, folder_ / corpus, store_, options.count);
    ASSERT_EQ(pairs.size(), kShownImages);
    EXPECT_EQ(decode_image(pairs[0].synthetic_png, "").pixels, records_[7]);
    EXPECT_EQ(decode_image(pairs[1].record_png, "").pixels, records_[8]);
    EXPECT_EQ(count_of(replication_html(audit, {pairs}), "<img"), 2 * kShownImages);
    EXPECT_EQ(count_of(replication_csv(audit), "\n"), 64u);
    EXPECT_EQ(to_json(audit)["features"][0]["by_distance"]["copies"]["trials"], 63);
  }
}

TEST_F(ReplicationTest, WhatDoesNotFitIsRefused) {
  EXPECT_THAT(
      error_message<UsageError>([&] { audit_replication(folder_ / "store", store_, nullptr, {}); }),
      HasSubstr("neither pictures under images/ nor shards"));
  EXPECT_THROW(audit_replication(folder_ / "nowhere", store_, nullptr, {}), UsageError);
  EXPECT_THROW(audit_replication(folder_ / "clean", store_, &store_, {}), UsageError);
  const RecordStore small = test::write_store(folder_ / "small", random_images(9, 1));
  EXPECT_THAT(
      error_message<UsageError>([&] { audit_replication(folder_ / "clean", small, nullptr, {}); }),
      HasSubstr("16x16"));
  EXPECT_THROW(audit_replication(folder_ / "clean", store_, &small, {}), UsageError);
  set_stop_requested(true);
  EXPECT_THROW(audit_replication(folder_ / "clean", store_, nullptr, {}), Interrupted);
  set_stop_requested(false);
}

TEST_F(ReplicationTest, ACountSpreadsOverTheFolder) {
  const auto names = [&](const char* corpus, int64_t count) {
    std::vector<std::string> found;
    for (CorpusImages images(folder_ / corpus, count); images.next();)
      found.push_back(images.name());
    return found;
  };
  EXPECT_EQ(names("clean", 0).size(), 60u);
  EXPECT_THAT(names("clean", 3),
              ElementsAre("images/0/000000.png", "images/0/000020.png", "images/0/000040.png"));
  EXPECT_EQ(names("shards", 0).size(), 63u);
  EXPECT_EQ(names("shards", 41).back(), "shard-000001.tar/0-000040.png");
  EXPECT_THROW(CorpusImages(folder_ / "clean", -1), UsageError);
}

// Statistics --------------------------------------------------------------------------------------

TEST(NullComparison, ZIsThatOfAllPermutations) {
  // Ties, and few enough values that every split into 4 and 5 can be listed.
  const std::vector<double> all = {1, 2, 2, 3, 3, 3, 5, 7, 7};
  const auto greater = [](const std::vector<double>& a, const std::vector<double>& b) {
    double pairs = 0;
    for (const double x : a)
      for (const double y : b) pairs += x > y ? 1 : x == y ? 0.5 : 0;
    return pairs;
  };
  double sum = 0, squares = 0, count = 0;
  for (unsigned mask = 0; mask < 1u << 9; ++mask) {
    std::vector<double> a, b;
    for (unsigned i = 0; i < 9; ++i) (mask >> i & 1 ? a : b).push_back(all[i]);
    if (a.size() != 4) continue;
    sum += greater(a, b), squares += greater(a, b) * greater(a, b), ++count;
  }
  const double mean = sum / count, deviation = std::sqrt(squares / count - mean * mean);
  const std::vector<double> synthetic = {1, 2, 3, 3}, null = {2, 3, 5, 7, 7};
  const NullComparison found = compare_with_null(synthetic, null);
  EXPECT_NEAR(found.z, (greater(synthetic, null) - mean) / deviation, 1e-9);
  EXPECT_NEAR(found.p_value, 0.5 * std::erfc(-found.z / std::sqrt(2.0)), 1e-9);
  EXPECT_LT(found.z, 0) << "synthetic values are the smaller ones";
}

TEST(NullComparison, ThresholdKeepsTheNullShare) {
  std::vector<double> null(2000), synthetic = {0.5, 1.5, 2.5, 1000};
  std::iota(null.begin(), null.end(), 1.0);
  const NullComparison found = compare_with_null(synthetic, null);
  EXPECT_EQ(found.threshold, 3);  // two of 2000 lie below
  EXPECT_EQ(found.copies.hits, 3);
  EXPECT_NEAR(found.expected_share, 3.0 / 2001, 1e-12);
  const std::vector<double> same(50, 1.0);
  EXPECT_EQ(compare_with_null(same, same).z, 0);
  EXPECT_EQ(compare_with_null(same, same).copies.hits, 0);
}

}  // namespace
}  // namespace sfumato
