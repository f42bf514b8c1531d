// The stage of the semantic query: votes of private images for public classes, by brute force; by
// how much one record or user moves them, over all neighbours of a small store; noise on every
// count; what is chosen by them.
#include "sfumato/mechanism/semantic_query.h"

#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "mechanism/stage_session.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/record_store_writer.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::ElementsAre;

/// An image of the private set: tiny_image(number) in a class, of a user.
struct Record {
  int number, label, user = 0;
};
using Counts = std::vector<std::vector<double>>;

StagePlan query_stage(double noise_multiplier, int64_t votes) {
  return {.name = "semantic_query",
          .event = Phase{1, noise_multiplier, 1},
          .clip_norm_l2 = std::sqrt(static_cast<double>(votes))};
}

class SemanticQueryTest : public ::testing::Test {
 protected:
  static constexpr int kPublic = 5, kPrivate = 2;
  SemanticQueryTest() {
    RecordStoreWriter writer(folder / "public",
                             {8, 8, 1, kPublic, {"v", "w", "none", "y", "z"}, false, 1});
    for (int i = 100; i < 140; ++i)
      if (i % kPublic != 2) writer.append(tiny_image(i), i % kPublic);
    writer.finish({{"note", "made by a test"}});
  }
  ClassMeans means() const {
    return {make_feature_network("pixels", {.shape = {1, 8, 8}, .weights = {}}),
            RecordStore::open(folder / "public")};
  }
  RecordStore store(const std::vector<Record>& records) {
    const bool has_users = std::ranges::any_of(records, [](auto& each) { return each.user > 0; });
    const auto path = folder / ("private" + std::to_string(++stores_));
    RecordStoreWriter writer(path,
                             {8, 8, 1, kPrivate, {"across", "down"}, has_users, has_users ? 2 : 1});
    for (const Record& each : records)
      writer.append(tiny_image(each.number), each.label, each.user);
    writer.finish({{"note", "made by a test"}});
    return RecordStore::open(path);
  }
  /// The counts, with noise that nobody sees, or with that of a seed.
  SemanticQuery query(const std::vector<Record>& records, int64_t votes, double noise = 1e-7,
                      uint64_t seed = 1) {
    Session session({query_stage(noise, votes)}, seed);
    const SemanticQuery found = release_semantic_query(store(records), query_stage(noise, votes),
                                                       means(), votes, session.mechanism);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("semantic_query"), 1);
    EXPECT_DOUBLE_EQ(found.noise_stddev, noise * std::sqrt(static_cast<double>(votes)));
    return found;
  }
  /// The `votes` public classes whose mean image is nearest, by plain loops over pixels.
  static std::vector<int> nearest(int number, int64_t votes) {
    std::vector<std::pair<double, int>> order;
    for (const int label : {0, 1, 3, 4}) {
      std::vector<double> mean(64);
      for (int i = 100; i < 140; ++i)
        for (size_t p = 0; p < 64; ++p)
          mean[p] += i % kPublic == label ? tiny_image(i)[p] / 8.0 : 0;
      double squares = 0;
      for (size_t p = 0; p < 64; ++p) squares += std::pow(tiny_image(number)[p] - mean[p], 2);
      order.emplace_back(squares, label);
    }
    std::ranges::sort(order);
    std::vector<int> labels;
    for (int64_t i = 0; i < votes; ++i) labels.push_back(order[static_cast<size_t>(i)].second);
    return labels;
  }
  static double distance(const SemanticQuery& a, const SemanticQuery& b) {
    double squares = 0;
    for (size_t r = 0; r < a.noisy_counts.size(); ++r)
      for (size_t c = 0; c < a.noisy_counts[r].size(); ++c)
        squares += std::pow(a.noisy_counts[r][c] - b.noisy_counts[r][c], 2);
    return std::sqrt(squares);
  }
  static std::vector<Record> some_records(int count) {
    std::vector<Record> records;
    for (int i = 0; i < count; ++i) records.push_back({i, i % kPrivate});
    return records;
  }
  TempFolder folder;

 private:
  int stores_ = 0;
};

TEST_F(SemanticQueryTest, CountsAreThoseOfBruteForce) {
  const std::vector<Record> records = some_records(30);
  for (const int64_t votes : {1, 2, 4}) {
    Counts expected(kPrivate, std::vector<double>(kPublic));
    for (const Record& each : records)
      for (const int label : nearest(each.number, votes))
        ++expected[static_cast<size_t>(each.label)][static_cast<size_t>(label)];
    const SemanticQuery found = query(records, votes);
    ASSERT_EQ(found.noisy_counts.size(), expected.size());
    for (size_t r = 0; r < expected.size(); ++r)
      for (size_t c = 0; c < expected[r].size(); ++c)
        EXPECT_NEAR(found.noisy_counts[r][c], expected[r][c], 1e-4) << r << " " << c;
    EXPECT_EQ(found.public_images, (std::vector<int64_t>{8, 8, 0, 8, 8}));
    EXPECT_EQ(found.features, "pixels");
  }
}

// Over all neighbours: every record left out, and every one replaced by images of either class.
TEST_F(SemanticQueryTest, ARecordMovesTheCountsByNoMoreThanIsCharged) {
  const std::vector<Record> records = some_records(6);
  for (const int64_t votes : {1, 2}) {
    const double norm = std::sqrt(static_cast<double>(votes));
    const SemanticQuery all = query(records, votes);
    double most_removed = 0, most_replaced = 0;
    for (size_t i = 0; i < records.size(); ++i) {
      std::vector<Record> others = records;
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
      most_removed = std::max(most_removed, distance(all, query(others, votes)));
      for (int number = 50; number < 54; ++number)
        for (int label = 0; label < kPrivate; ++label) {
          others = records;
          others[i] = {number, label};
          most_replaced = std::max(most_replaced, distance(all, query(others, votes)));
        }
    }
    EXPECT_NEAR(most_removed, norm, 1e-4) << "and no less: the bound is tight";
    EXPECT_NEAR(most_replaced, std::sqrt(2.0) * norm, 1e-4);
  }
}

// A user of two images: what the accountant takes a unit of two records to move.
TEST_F(SemanticQueryTest, AUserMovesTheCountsByNoMoreThanItsRecords) {
  const std::vector<Record> records = {{0, 0, 1}, {4, 0, 1}, {1, 1, 2}, {2, 0, 3}, {3, 1, 3}};
  for (const int64_t votes : {1, 2}) {
    const SemanticQuery all = query(records, votes);
    double most = 0;
    for (const int user : {1, 2, 3}) {
      std::vector<Record> others = records;
      std::erase_if(others, [&](const Record& each) { return each.user == user; });
      most = std::max(most, distance(all, query(others, votes)));
    }
    EXPECT_LE(most, 2 * std::sqrt(static_cast<double>(votes)) + 1e-4);
    EXPECT_GE(most, std::sqrt(2.0 * static_cast<double>(votes)) - 1e-4);
  }
}

TEST_F(SemanticQueryTest, NoiseIsOnEveryCount) {
  const std::vector<Record> records = some_records(7);
  const double sigma = 3;
  const int64_t votes = 4;
  const SemanticQuery exact = query(records, votes);
  std::vector<std::vector<double>> noise(kPrivate * kPublic);
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    const SemanticQuery one = query(records, votes, sigma, seed);
    for (size_t i = 0; i < noise.size(); ++i)
      noise[i].push_back(one.noisy_counts[i / kPublic][i % kPublic] -
                         exact.noisy_counts[i / kPublic][i % kPublic]);
  }
  // Also on the public class that has no images, for which nobody can vote.
  for (const auto& values : noise) expect_noise(values, sigma * 2);
}

TEST_F(SemanticQueryTest, IsOneReleaseOfEveryRecordAndCharged) {
  const RecordStore records = store(some_records(6));
  const ClassMeans votes = means();
  StagePlan sampled = query_stage(2, 2), twice = sampled, narrower = sampled;
  sampled.event = Phase{0.5, 2, 1};
  twice.event = Phase{1, 2, 2};
  narrower.clip_norm_l2 = 1;
  for (const StagePlan& stage : {sampled, twice, narrower}) {
    Session session({stage});
    EXPECT_THROW((void)release_semantic_query(records, stage, votes, 2, session.mechanism),
                 PrivacyError);
    EXPECT_EQ(session.mechanism.ledger().charged_releases("semantic_query"), 0);
  }
  Session spent({query_stage(2, 2)});
  (void)release_semantic_query(records, query_stage(2, 2), votes, 2, spent.mechanism);
  EXPECT_THROW((void)release_semantic_query(records, query_stage(2, 2), votes, 2, spent.mechanism),
               PrivacyError);
  Session none({});
  EXPECT_THROW((void)release_semantic_query(records, query_stage(2, 2), votes, 2, none.mechanism),
               PrivacyError);
}

// Replaced counts are planned by their own sensitivity, which the sum must have.
TEST_F(SemanticQueryTest, ReplacedRecordsAreCountedByTheirSensitivity) {
  const RecordStore records = store(some_records(6));
  StagePlan stage = query_stage(2, 2);
  stage.event = GaussianRelease{stage.clip_norm_l2 * std::hypot(-1, 1), 2 * std::sqrt(2.0), 1};
  Session session({stage}, 1, Adjacency::kReplaceOne);
  const SemanticQuery found = release_semantic_query(records, stage, means(), 2, session.mechanism);
  EXPECT_DOUBLE_EQ(found.noise_stddev, 2 * std::sqrt(2.0));
}

TEST_F(SemanticQueryTest, AStopIsHeardBeforeAnythingIsCharged) {
  const RecordStore records = store(some_records(6));
  const ClassMeans votes = means();
  Session session({query_stage(2, 1)});
  set_stop_requested(true);
  EXPECT_THROW(
      (void)release_semantic_query(records, query_stage(2, 1), votes, 1, session.mechanism),
      Interrupted);
  set_stop_requested(false);
  EXPECT_EQ(session.mechanism.ledger().charged_releases("semantic_query"), 0);
}

SemanticQuery some_query() {
  SemanticQuery query;
  query.noisy_counts = {{3, 9, 100, 3}, {-4, -5, 100, -6}};
  query.noise_stddev = 2;
  query.votes_per_record = 3;
  query.public_store = std::string(64, 'a');
  query.public_classes = {"v", "w", "none", "y"};
  query.public_images = {5, 5, 0, 5};
  query.features = "pixels";
  query.features_weights = "none";
  return query;
}

TEST(SemanticQuery, ChoosesTheLargestCountsOfClassesWithImages) {
  EXPECT_THAT(some_query().chosen_classes(1), ElementsAre(ElementsAre(1), ElementsAre(0)));
  EXPECT_THAT(some_query().chosen_classes(3),
              ElementsAre(ElementsAre(1, 0, 3), ElementsAre(0, 1, 3)));
  EXPECT_THROW((void)some_query().chosen_classes(4), std::logic_error);
  EXPECT_THROW((void)some_query().chosen_classes(0), std::logic_error);
}

TEST(SemanticQuery, ReadsBackAndRefusesOtherFiles) {
  const TempFolder folder;
  const auto file = folder / "query.json";
  some_query().save(file);
  const SemanticQuery read = SemanticQuery::load(file);
  EXPECT_EQ(read.noisy_counts, some_query().noisy_counts);
  EXPECT_EQ(read.noise_stddev, 2);
  EXPECT_EQ(read.votes_per_record, 3);
  EXPECT_EQ(read.public_store, some_query().public_store);
  EXPECT_EQ(read.public_classes, some_query().public_classes);
  EXPECT_EQ(read.public_images, some_query().public_images);
  EXPECT_EQ(read.features, "pixels");
  EXPECT_EQ(read.features_weights, "none");
  const auto refused = [&](const std::function<void(SemanticQuery&)>& change) {
    SemanticQuery other = some_query();
    change(other);
    other.save(file);
    EXPECT_THROW((void)SemanticQuery::load(file), DataError);
  };
  refused([](SemanticQuery& query) { query.noisy_counts[0].pop_back(); });
  refused([](SemanticQuery& query) { query.noisy_counts.clear(); });
  refused([](SemanticQuery& query) { query.public_images.pop_back(); });
  refused([](SemanticQuery& query) { query.noisy_counts[1][0] = std::nan(""); });
  for (const char* text : {"{}", "[]", "{\"schema_version\": 2}", "nothing"}) {
    write_file_atomic(file, text);
    EXPECT_THROW((void)SemanticQuery::load(file), DataError) << text;
  }
}

}  // namespace
}  // namespace sfumato
