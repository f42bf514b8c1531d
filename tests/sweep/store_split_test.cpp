#include "sfumato/sweep/store_split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "sfumato/core/error.h"
#include "sfumato/data/record_store.h"
#include "sfumato/sweep/sweep_plan.h"
#include "support/error_message.h"
#include "sweep/sweep_support.h"

namespace sfumato {
namespace {

using ::testing::HasSubstr;
using namespace test;
namespace fs = std::filesystem;

std::multiset<int> records_in(const fs::path& path) {
  const RecordStore store = RecordStore::open(path);
  std::multiset<int> found;
  for (std::int64_t i = 0; i < store.count(); ++i) found.insert(store.pixels(i)[0]);
  return found;
}

class StoreSplits : public ::testing::Test {
 protected:
  StoreSplits() { folder.write_store("whole", 200); }
  SweepFolder folder;
};

TEST_F(StoreSplits, EveryRecordIsInOnePart) {
  const StoreParts parts = split_store("whole", 0.25, Adjacency::kZeroOut);
  std::multiset<int> all = records_in(parts.tuning);
  EXPECT_NEAR(static_cast<double>(all.size()), 50, 25);
  all.merge(records_in(parts.final_run));
  EXPECT_EQ(all, records_in("whole"));
}

TEST_F(StoreSplits, APlaceDecidesAndNothingElse) {
  const StoreParts parts = split_store("whole", 0.25, Adjacency::kZeroOut);
  for (const int value : records_in(parts.tuning)) EXPECT_TRUE(is_for_tuning(value, 0.25));
  for (const int value : records_in(parts.final_run)) EXPECT_FALSE(is_for_tuning(value, 0.25));
}

TEST_F(StoreSplits, AreMadeOnceAndRecognised) {
  const StoreParts parts = split_store("whole", 0.25, Adjacency::kZeroOut);
  const std::string hash = RecordStore::open(parts.tuning).manifest_hash();
  EXPECT_EQ(
      RecordStore::open(split_store("whole", 0.25, Adjacency::kZeroOut).tuning).manifest_hash(),
      hash);
  fs::remove_all("whole");
  folder.write_store("whole", 201);
  EXPECT_THAT(error_message<DataError>([] { split_store("whole", 0.25, Adjacency::kZeroOut); }),
              HasSubstr("no part of this record store"));
}

TEST_F(StoreSplits, AreRefusedWherePartsWouldNotComposeInParallel) {
  EXPECT_THROW(split_store("whole", 0.25, Adjacency::kAddRemove), PrivacyError);
  RecordStoreWriter writer("users", {4, 4, 1, 0, {}, true, 2});
  writer.append(std::vector<std::uint8_t>(16), 0, 0);
  writer.finish();
  EXPECT_THAT(error_message<PrivacyError>([] { split_store("users", 0.25, Adjacency::kZeroOut); }),
              HasSubstr("the records of one user"));
  EXPECT_FALSE(fs::exists("users-tuning-0.25"));
}

TEST_F(StoreSplits, SweepsSeeTheTuningPartAlone) {
  folder.write("base.yaml",
               "data: {store: whole, image_size: 4, channels: 1}\n"
               "mechanism: {steps: 5, noise_multiplier: 2}\n");
  folder.write("sweep.yaml",
               "sweep: {name: s, base: base.yaml, purpose: disjoint_split, tuning_share: 0.25}\n");
  const SweepPlan plan = open_sweep("sweep.yaml", true);
  EXPECT_EQ(plan.store(), "whole-tuning-0.25");
  EXPECT_THAT(plan.runs[0].settings, HasSubstr("store: whole-tuning-0.25"));
  EXPECT_EQ(open_sweep("sweep.yaml", false).hash, plan.hash);
}

}  // namespace
}  // namespace sfumato
