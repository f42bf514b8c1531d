// The first configuration that `init` writes.
#include "sfumato/config/starter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "load_helpers.h"

namespace sfumato {
namespace {

using test::load_text;
using ::testing::HasSubstr;

StarterFacts patients() {
  StarterFacts facts;
  facts.name = "scans";
  facts.source = "/data/scans";
  facts.image_size = 64;
  facts.channels = 1;
  facts.class_names = {"benign", "it's: \"odd\"", "no"};
  facts.num_classes = 3;
  facts.records = 600;
  facts.users = "users.csv";
  facts.records_per_user = 4;
  facts.network = "scans_network.json";
  return facts;
}

TEST(Starter, ItsConfigurationReadsBack) {
  const StarterFacts facts = patients();
  const auto config = load_text(starter_configuration(facts));
  EXPECT_NO_THROW(validate_for_training(*config));
  EXPECT_EQ(config->data.class_names(), facts.class_names);
  EXPECT_EQ(config->data.num_classes(), 3);
  EXPECT_EQ(config->data.image_size(), 64);
  EXPECT_EQ(config->data.users(), "users.csv");
  EXPECT_EQ(config->data.records_per_user(), 4);
  EXPECT_EQ(config->run.dir(), "runs/scans");
  EXPECT_EQ(config->mechanism.delta(), 1e-4) << "well below one in 600";
  EXPECT_NEAR(config->mechanism.sample_rate() * 600, config->mechanism.expected_batch_size(), 1e-9);
  EXPECT_THAT(starter_configuration(facts), HasSubstr("about 600 images"));
}

TEST(Starter, BatchesFitAnyNumberOfImages) {
  StarterFacts facts = patients();
  for (const std::int64_t records : {1, 3, 40, 600, 10'000, 1'000'000'000}) {
    facts.records = records;
    const auto config = load_text(starter_configuration(facts));
    EXPECT_GT(config->mechanism.sample_rate(), 0) << records;
    EXPECT_LE(config->mechanism.sample_rate(), 1) << records;
    EXPECT_LT(config->mechanism.delta(), 1.0 / static_cast<double>(records)) << records;
  }
}

TEST(Starter, NumbersAreRounded) {
  EXPECT_EQ(rounded_count(7), 7);
  EXPECT_EQ(rounded_count(628), 600);
  EXPECT_EQ(rounded_count(960), 1000);
  EXPECT_EQ(rounded_count(14'999), 10'000);
  EXPECT_EQ(proposed_size(28), 28);
  EXPECT_EQ(proposed_size(31), 16);
  EXPECT_EQ(proposed_size(512), 64);
  EXPECT_EQ(proposed_size(33), 32);
}

TEST(Starter, ItsNetworkIsForTheseImages) {
  const auto network = nlohmann::json::parse(starter_network(patients()));
  EXPECT_EQ(network.at("sample_size"), 64);
  EXPECT_EQ(network.at("in_channels"), 1);
  EXPECT_EQ(network.at("out_channels"), 1);
}

}  // namespace
}  // namespace sfumato
