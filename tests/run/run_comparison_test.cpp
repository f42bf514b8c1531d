// Card, stage results and configuration against the ledger, field by field, and ledgers that are
// none.
#include "run/verified_run.h"
#include "sfumato/core/sha256.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::IsEmpty;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

TEST_F(Verification, EveryFieldOfTheCardThatFollowsFromTheLedgerIsCompared) {
  start("run", kChanges);
  const auto edited = [&](const std::string& key, const std::function<void(Json&)>& edit) {
    expect_caught(key, "privacy card", key + " is ",
                  [&](const fs::path& run) { edit_card(run, edit); });
  };
  const auto scaled = [](Json& value, double factor) { value = value.get<double>() * factor; };
  edited("statement", [](Json& card) { card["statement"] = "Nobody can be recognised."; });
  edited("epsilon", [&](Json& card) { scaled(card["epsilon"], 1 + 1e-5); });
  edited("epsilon_lower", [&](Json& card) { scaled(card["epsilon_lower"], 0.9); });
  edited("grid", [&](Json& card) { scaled(card["grid"], 2); });
  edited("order", [](Json& card) { card["order"] = 3; });
  edited("selection", [](Json& card) { card["selection"] = "The best of many was taken."; });
  edited("recompute", [](Json& card) { card["recompute"] = "rm -r ."; });
  edited("not_covered", [](Json& card) { card["not_covered"] = Json::array(); });
  edited("epsilon_at_delta",
         [&](Json& card) { scaled(card["epsilon_at_delta"].back()["epsilon"], 0.5); });
  edited("epsilon_at_delta", [](Json& card) { card["epsilon_at_delta"].erase(0); });
  edited("largest_true_positive_rate", [&](Json& card) {
    scaled(card["largest_true_positive_rate"][0]["true_positive_rate"], 0.5);
  });
  edited("result_sha256",
         [](Json& card) { card["stages"][0]["result_sha256"] = std::string(64, '0'); });
  edited("truncation", [](Json& card) {
    card["stages"].back()["truncation"] = {{"records", 40}, {"max_batch", 1}};
  });
  edited("status", [](Json& card) { card["status"] = "void"; });
  // The last digits differ from machine to machine.
  edit_card(copy("rounded"), [&](Json& card) { scaled(card["epsilon"], 1 + 1e-8); });
  rewrite_pages(folder / "rounded");
  EXPECT_THAT(verify("rounded").problems(), IsEmpty());
}

TEST_F(Verification, AReplacedStageResultIsCaught) {
  start("run", kChanges);
  EXPECT_EQ(ledger("run").stage_results.at("label_histogram"),
            sha256_hex(read_file(folder / "run/release/label_histogram.json")));
  expect_caught("exact counts", "stage results", "label_histogram.json", [](const fs::path& run) {
    write_file_atomic(run / "release/label_histogram.json", R"({"proportions": [0.5, 0.5]})");
  });
  expect_caught("a stage that was not run", "stage results", "notes nothing",
                [](const fs::path& run) {
                  write_file_atomic(run / "release/central_images.safetensors", "images");
                });
  fs::remove(copy("shared") / "release/label_histogram.json");
  EXPECT_EQ(check_of(verify("shared"), "stage results").outcome, RunCheck::Outcome::kNotChecked);
}

TEST_F(Verification, WhateverStandsInTheLedgerIsAListedProblem) {
  const std::string deep =
      R"({"kind":"create","plan":)" + std::string(200000, '[') + std::string(200000, ']') + "}\n";
  std::string random;
  for (std::uint32_t i = 0, x = 12345; i < 5000; ++i) {
    x = x * 1664525 + 1013904223;
    random += static_cast<char>(x >> 24);
  }
  for (const std::string& text :
       {random, random + "\n", std::string(200000, '[') + "\n", deep, std::string("[]\n{}\n"),
        std::string("{\"kind\":\"charge\",\"session\":\"a\",\"step\":{}}\n"),
        std::string("{\"kind\":3,\"plan\":\"a\",\"line\":1e999}\n"),
        std::string("{\"kind\":\"create\",\"plan\":null,\"format\":-1,\"max_charged_steps\":[]}\n"),
        std::string("{\"kind\":\"create\",\"plan\":{\"stages\":3,\"steps\":\"x\"}}\n")}) {
    write_file_atomic(folder / "bytes", text);
    RunVerification found;
    ASSERT_NO_THROW(found = verify("bytes")) << text.substr(0, 60);
    EXPECT_EQ(found.verdict(), "DAMAGED") << text.substr(0, 60);
    EXPECT_THAT(found.problems(), testing::Not(IsEmpty()));
  }
}

TEST_F(Verification, TheConstantOfAutomaticClippingIsCompared) {
  start("run", {"mechanism.clipping=automatic", "mechanism.automatic_gamma=0.02"});
  EXPECT_THAT(verify("run").problems(), IsEmpty());
  expect_caught("gamma", "configuration", "automatic_gamma is 0.03", [&](const fs::path& run) {
    write_file_atomic(run / "config.yaml", config("run", {"mechanism.clipping=automatic",
                                                          "mechanism.automatic_gamma=0.03"})
                                               ->resolved_yaml());
  });
}

}  // namespace
}  // namespace sfumato
