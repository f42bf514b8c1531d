#include "sfumato/report/privacy_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/json_file.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

PrivacyCard private_card() {
  PrivacyCard card;
  card.status = PrivacyCard::Status::kPrivate;
  card.epsilon = 9.87654;
  card.delta = 1e-5;
  card.unit = "one image";
  card.adjacency = "add_remove";
  card.order = 3.5;
  card.noise = "ChaCha20";
  card.public_data = {"glyphs"};
  card.stages = {{.name = "label_histogram",
                  .event = {{"mechanism", "gaussian"},
                            {"sensitivity_l2", 1.0},
                            {"noise_stddev", 50.0},
                            {"count", 1}},
                  .planned = 1,
                  .charged = 1,
                  .clip_norm_l2 = 1},
                 {.name = "train",
                  .event = {{"mechanism", "sampled_gaussian"},
                            {"sample_rate", 0.01},
                            {"noise_multiplier", 0.75},
                            {"steps", 402},
                            {"records_per_unit", 1}},
                  .planned = 400,
                  .charged = 402,
                  .clip_norm_l2 = 0.5,
                  .clipping = "flat",
                  .expected_batch_size = 600}};
  card.epsilon_at_delta = {{1e-3, 7.5}, {1e-5, 9.87654}};
  card.true_positive_bounds = {{0.001, 0.9}, {0.01, 0.99}};
  card.data_manifest_hash = "abc";
  card.num_classes = 10;
  return card;
}

TEST(PrivacyCard, StatesTheClaim) {
  const auto json = to_json(private_card());
  EXPECT_EQ(json["status"], "private");
  EXPECT_EQ(json["epsilon"], 9.87654);
  EXPECT_EQ(json["delta"], 1e-5);
  EXPECT_TRUE(json["epsilon_lower"].is_null());
  EXPECT_EQ(json["schema_version"], 2);
  EXPECT_EQ(json["stages"][0]["noise_stddev"], 50.0);
  EXPECT_EQ(json["stages"][1]["charged"], 402);
  EXPECT_EQ(json["stages"][1]["steps"], 402);
  EXPECT_EQ(json["candidates"], 1);
  EXPECT_EQ(json["epsilon_at_delta"][1]["epsilon"], 9.87654);
  EXPECT_EQ(json["largest_true_positive_rate"][0]["true_positive_rate"], 0.9);
  EXPECT_EQ(json["public_facts"]["num_classes"], 10);
  for (const char* key : {"schema_version", "sampler", "accountant", "order", "noise", "code",
                          "data_manifest_hash", "plan_hash", "ledger_head_hash", "not_covered"})
    EXPECT_TRUE(json.contains(key)) << key;

  const std::string text = card_markdown(json);
  EXPECT_THAT(text, HasSubstr("ε = 9.877 and δ = 1e-05"));
  EXPECT_THAT(text, HasSubstr("one image"));
  EXPECT_THAT(text, HasSubstr("added or removed"));
  EXPECT_THAT(text, HasSubstr("402 charged of 400 planned"));
  EXPECT_THAT(text, HasSubstr("Gaussian, sensitivity 1, noise 50"));
  EXPECT_THAT(text, HasSubstr("90 % at 0.1 % false alarms"));
  EXPECT_THAT(text, HasSubstr("sfumato account --card privacy_card.json"));
  EXPECT_LT(text.find("ε = 9.877"), text.find("| Status")) << "the statement comes first";
  EXPECT_LT(text.find("| Status"), text.find("### Recompute"));
  EXPECT_THAT(text, Not(HasSubstr("VOID")));
  EXPECT_THAT(text, Not(HasSubstr("NOT PRIVATE")));
  EXPECT_EQ(card_banner(json).banner, ReportBanner::kPrivate);
  EXPECT_THAT(card_rows(json), Contains(Pair("ε", "9.877")));
  EXPECT_FALSE(card_notes(json).empty());
}

TEST(PrivacyCard, SaysWhereTheClassNamesComeFrom) {
  PrivacyCard card = private_card();
  card.num_classes = 2;
  card.class_names = {"cat", "d|og"};
  card.class_names_from = "configuration";
  auto json = to_json(card);
  EXPECT_THAT(card_rows(json), Contains(Pair("Classes", "2: cat, d|og")));
  EXPECT_THAT(card_markdown(json), HasSubstr("d\\|og"));
  EXPECT_THAT(card_markdown(json), Not(HasSubstr("accepted as public")));
  card.class_names_from = "source";
  card.classes_that_may_be_empty = {"*"};
  json = to_json(card);
  EXPECT_EQ(json["public_facts"]["class_names_from"], "source");
  EXPECT_THAT(card_rows(json), Contains(Pair("Classes that may have had no image", "any")));
  EXPECT_THAT(card_markdown(json), HasSubstr("accepted as public"));
  EXPECT_THAT(card_notes(json), Contains(HasSubstr("found in the private source")));
}

TEST(PrivacyCard, SaysNotPrivateAndShowsNoEpsilon) {
  PrivacyCard card = private_card();
  card.status = PrivacyCard::Status::kNotPrivate;
  card.reasons = {"privacy.enabled is false"};
  const auto json = to_json(card);
  EXPECT_TRUE(json["epsilon"].is_null());
  EXPECT_TRUE(json["delta"].is_null());
  EXPECT_THAT(card_markdown(json), HasSubstr("NOT PRIVATE"));
  EXPECT_THAT(card_markdown(json), HasSubstr("privacy.enabled is false"));
  EXPECT_THAT(card_markdown(json), Not(HasSubstr("9.877")));
  EXPECT_EQ(card_banner(json).banner, ReportBanner::kNotPrivate);
}

TEST(PrivacyCard, SaysVoidAndWhy) {
  for (const auto& json :
       {void_card("nobody knows"), voided(to_json(private_card()), "nobody knows")}) {
    EXPECT_EQ(json["status"], "void");
    EXPECT_TRUE(json["epsilon"].is_null());
    EXPECT_THAT(card_markdown(json), HasSubstr("VOID"));
    EXPECT_THAT(card_markdown(json), HasSubstr("nobody knows"));
    EXPECT_THAT(card_markdown(json), Not(HasSubstr("9.877")));
    EXPECT_EQ(card_banner(json).banner, ReportBanner::kVoid);
    EXPECT_TRUE(card_notes(json).empty());
    EXPECT_TRUE(json["epsilon_at_delta"].empty());
    EXPECT_TRUE(json["largest_true_positive_rate"].empty());
    EXPECT_THAT(card_markdown(json), Not(HasSubstr("Recompute")));
  }
  PrivacyCard card;
  card.status = PrivacyCard::Status::kNotPrivate;
  EXPECT_EQ(voided(to_json(card), "x")["status"], "not_private");
}

TEST(PrivacyCard, ClaimsNothingWithoutNumbers) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const auto& [epsilon, delta] : std::vector<std::pair<double, double>>{
           {infinity, 1e-5}, {std::nan(""), 1e-5}, {-1, 1e-5}, {3, 0}, {3, 1}, {3, std::nan("")}}) {
    PrivacyCard card = private_card();
    card.epsilon = epsilon;
    card.delta = delta;
    EXPECT_EQ(to_json(card)["status"], "void") << epsilon << " " << delta;
    EXPECT_TRUE(to_json(card)["epsilon"].is_null());
  }
  EXPECT_EQ(to_json(PrivacyCard{})["status"], "void");
  PrivacyCard doubtful = private_card();
  doubtful.reasons = {"shuffled batches"};
  EXPECT_EQ(to_json(doubtful)["status"], "void");
}

TEST(PrivacyCard, ReadsBackWhatWasWritten) {
  const test::TempFolder folder;
  const auto json = to_json(private_card());
  write_json_atomic(folder / "privacy_card.json", json);
  const auto back = read_privacy_card(folder / "privacy_card.json");
  EXPECT_EQ(back.dump(), json.dump());  // order included
  const auto missing = read_privacy_card(folder / "nothing.json");
  EXPECT_EQ(missing["status"], "void");
  EXPECT_THAT(card_markdown(missing), HasSubstr("no privacy card found beside the weights"));
  // As public weights have none: nothing was claimed, and so nothing made void.
  EXPECT_EQ(card_banner(missing).banner, ReportBanner::kNoClaim);
  EXPECT_THAT(card_markdown(missing),
              ::testing::AllOf(HasSubstr("NO CLAIM"), Not(HasSubstr("VOID"))));
  EXPECT_EQ(card_banner(voided(missing, "edited")).banner, ReportBanner::kVoid);
  EXPECT_EQ(card_banner(voided(to_json(private_card()), kNoCardReason)).banner, ReportBanner::kVoid)
      << "that card claimed something";
}

TEST(PrivacyCard, ForeignFilesAreRefused) {
  const test::TempFolder folder;
  const auto path = folder / "privacy_card.json";
  const auto refused = [&](const std::string& text) {
    write_file_atomic(path, text);
    EXPECT_THROW(read_privacy_card(path), DataError) << text;
  };
  refused("{");
  refused("[]");
  refused("{}");
  auto json = to_json(private_card());
  for (const int version : {0, 1, 3}) {
    json["schema_version"] = version;
    refused(json.dump());
  }
  json = to_json(private_card());
  json["status"] = "fine";
  refused(json.dump());
  for (const char* key : {"epsilon", "delta", "unit", "statement"}) {
    json = to_json(private_card());
    json[key] = nullptr;
    refused(json.dump());
  }
}

TEST(PrivacyCard, BoundsAttackersByTheCurve) {
  using Curve = std::vector<std::pair<double, double>>;
  const double ln2 = std::log(2.0);
  // e^ε fpr + δ where false alarms are rare, 1 - e^-ε (1 - δ - fpr) where they are not.
  EXPECT_DOUBLE_EQ(largest_true_positive_rate(Curve{{0.01, ln2}}, 0.1), 0.21);
  EXPECT_DOUBLE_EQ(largest_true_positive_rate(Curve{{0.01, ln2}}, 0.6), 1 - 0.5 * 0.39);
  // A second point can only help, and does so where it is the tighter one.
  EXPECT_DOUBLE_EQ(largest_true_positive_rate(Curve{{0.01, ln2}, {0.05, 0}}, 0.1), 0.15);
  EXPECT_DOUBLE_EQ(largest_true_positive_rate(Curve{{1e-6, 50}}, 0.1), 1);
  EXPECT_DOUBLE_EQ(largest_true_positive_rate(Curve{{1e-30, 0}}, 0.1), 0.1);
  EXPECT_EQ(largest_true_positive_rate(Curve{}, 0.1), 1) << "nothing known, nothing bounded";
}

TEST(PrivacyCard, MarkdownCannotBeInjected) {
  PrivacyCard card = private_card();
  card.noise = "a|b\n<script>*x*";
  const std::string text = card_markdown(to_json(card));
  EXPECT_THAT(text, HasSubstr("a\\|b &lt;script&gt;\\*x\\*"));
  EXPECT_THAT(text, Not(HasSubstr("<script>")));
}

}  // namespace
}  // namespace sfumato
