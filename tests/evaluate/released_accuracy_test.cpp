// An accuracy on private images that may leave: planned, charged, noisy, drawn once.
#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "evaluate/noisy_evaluation_fixture.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/holdout.h"
#include "sfumato/evaluate/classifier.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/accuracy.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/run/witness.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

const std::string kAccuracy = "mechanism.stages.accuracy.";
/// Of a number of right answers: an exact one among the integers is told by it.
constexpr double kNoise = 0.2;

class ReleasedAccuracy : public NoisyEvaluationTest {
 protected:
  /// 50 is not the number of the private images.
  static std::vector<std::string> planned(std::vector<std::string> more = {}) {
    std::vector<std::string> changes = {kAccuracy + "noise_multiplier=0.2",
                                        kAccuracy + "expected_records=50"};
    changes.insert(changes.end(), more.begin(), more.end());
    return changes;
  }
  void begin(const std::vector<std::string>& more = {}) const {
    start("run", planned(more));
    draw_corpus("corpus", "run");
  }
  /// Right answers on a store, counted in one go.
  double by_hand(const NoisyEvaluationRequest& asked, ClassifierKind kind, uint64_t seed) const {
    SetRequest reference;
    reference.path = asked.reference;
    const ImageSets sets = open_image_sets(asked.corpus, reference);
    ClassifierOptions options = asked.options.classifier;
    options.kind = kind;
    options.seed = seed;
    const Accuracy found = Classifier(sets.corpus.images, options).accuracy(sets.reference.images);
    return found.value * static_cast<double>(found.images);
  }
};

TEST_F(ReleasedAccuracy, IsTheCountByHandAndThePlansNoise) {
  begin();
  const NoisyEvaluation made = evaluate_with_noise(request());
  EXPECT_FALSE(made.made_before);
  const NoisyAccuracy file = read_noisy_accuracy(folder / "run/release/accuracy.json");
  ASSERT_EQ(file.classifiers.size(), 1u);
  EXPECT_EQ(file.noise_stddev, kNoise);
  EXPECT_EQ(file.tested_on, "training images");
  const double noisy = file.classifiers[0].noisy_right_answers;
  EXPECT_NEAR(noisy, by_hand(request(), ClassifierKind::kSmall, 0), 4.9 * kNoise);
  EXPECT_NE(noisy, std::round(noisy)) << "no noise";
  const Measurement& one = measured(made.evaluation, "accuracy");
  EXPECT_EQ(one.value, noisy / 50);
  EXPECT_EQ(one.std, kNoise / 50);
  EXPECT_THAT(made.evaluation.measurements, testing::SizeIs(1)) << "and nothing else";
}

TEST_F(ReleasedAccuracy, IsChargedNotedAndOnTheCard) {
  begin();
  const Json before = card_of();
  const auto planned_epsilon = before["epsilon"];
  evaluate_with_noise(request());
  const LedgerSummary found = ledger("run");
  EXPECT_THAT(found.problems, IsEmpty());
  EXPECT_THAT(found.stage_charges, ElementsAre(Pair("accuracy", 1)));
  const std::string hash = sha256_hex(read_file(folder / "run/release/accuracy.json"));
  EXPECT_THAT(found.stage_results, ElementsAre(Pair("accuracy", hash)));
  const Json card = card_of();
  EXPECT_EQ(card["stages"][0]["charged"], 1);
  EXPECT_EQ(card["stages"][0]["result_sha256"], hash);
  EXPECT_EQ(card["epsilon"], planned_epsilon) << "it was counted from the start";
  EXPECT_THAT(problems(), IsEmpty());
  // What the store remembers is ahead of nothing, and a resumed run has nothing left to do.
  EXPECT_NO_THROW(resume("run", planned()));
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_THAT(ledger("run").stage_charges, ElementsAre(Pair("accuracy", 1)));
}

TEST_F(ReleasedAccuracy, IsDrawnOnce) {
  begin();
  const NoisyEvaluation first = evaluate_with_noise(request());
  const std::string lines = ledger_bytes();
  const NoisyEvaluation second = evaluate_with_noise(request());
  EXPECT_TRUE(second.made_before);
  EXPECT_EQ(measured(second.evaluation, "accuracy").value,
            measured(first.evaluation, "accuracy").value);
  EXPECT_EQ(ledger_bytes(), lines) << "nothing is charged, no session is begun";
  // Another number would be a second one.
  NoisyEvaluationRequest other = request();
  other.options.seed = 1;
  EXPECT_THAT(refusal(other), AllOf(HasSubstr("released already"), HasSubstr("from seed 0")));
  other = request();
  other.options.repeats = 2;
  EXPECT_THAT(refusal(other), HasSubstr("released already"));
  draw_corpus("larger", "run", 70);
  EXPECT_THAT(refusal("run", "larger"),
              AllOf(HasSubstr("released already"), HasSubstr("60 images")));
  EXPECT_EQ(ledger_bytes(), lines);
}

TEST_F(ReleasedAccuracy, OfSeveralClassifiersIsOneVector) {
  begin({kAccuracy + "classifiers=2"});
  NoisyEvaluationRequest asked = request();
  asked.options.repeats = 2;
  asked.options.seed = 5;
  evaluate_with_noise(asked);
  const NoisyAccuracy file = read_noisy_accuracy(folder / "run/release/accuracy.json");
  EXPECT_EQ(file.noise_stddev, kNoise * std::sqrt(2.0));
  const double exact =
      (by_hand(asked, ClassifierKind::kSmall, 5) + by_hand(asked, ClassifierKind::kSmall, 6)) / 2;
  EXPECT_NEAR(file.classifiers.at(0).noisy_right_answers, exact, 4.9 * file.noise_stddev);
}

TEST_F(ReleasedAccuracy, OfMoreClassifiersThanPlannedIsRefusedBeforeAnythingIsCharged) {
  begin();
  NoisyEvaluationRequest asked = request();
  asked.options.classifiers = {ClassifierKind::kSmall, ClassifierKind::kResNet110};
  const std::string lines = ledger_bytes();
  EXPECT_THAT(refusal<UsageError>(asked), HasSubstr("frozen for 1"));
  EXPECT_EQ(ledger_bytes(), lines);
}

TEST_F(ReleasedAccuracy, EveryPageSaysWhatWasDone) {
  begin();
  const NoisyEvaluation made = evaluate_with_noise(request());
  const Json json = to_json(made.evaluation, made.corpus, made.reference);
  const Json& privacy = json["reference_privacy"];
  EXPECT_EQ(privacy["status"], "released_with_noise");
  EXPECT_EQ(privacy["stages"], Json::parse(R"([{"stage": "accuracy", "noise_stddev": 0.2,
                                                "expected_records": 50.0}])"));
  EXPECT_EQ(privacy["delta"], 1e-3);
  EXPECT_NEAR(privacy["epsilon"].get<double>(), card_of()["epsilon"].get<double>(), 1e-9);
  EXPECT_EQ(json["accuracy"], measured(made.evaluation, "accuracy").value);
  // How many private images there are is as private as they are.
  EXPECT_EQ(json["reference"]["images"], 50);
  EXPECT_EQ(json["measurements"][0]["reference_images"], 50);
  EXPECT_THAT(json.dump(), Not(HasSubstr(":40,")));
  const std::string said = "Released with noise: how many private training images";
  for (const std::string& page :
       {evaluation_markdown(made.evaluation, made.corpus, made.reference),
        evaluation_html(made.evaluation, made.corpus, made.reference, {})}) {
    EXPECT_THAT(page, AllOf(HasSubstr(said), HasSubstr("standard deviation 0.2, divided by 50"),
                            HasSubstr("0.001)-differentially private for one image")));
    EXPECT_THAT(page, Not(HasSubstr("PRIVATE: these numbers tell")));
  }
  EXPECT_THAT(evaluation_html(made.evaluation, made.corpus, made.reference, {}),
              Not(HasSubstr("banner alarm")));
}

TEST_F(ReleasedAccuracy, ExactNumbersAreNotCalledNoisy) {
  begin();
  SetRequest reference;
  reference.path = folder / "store";
  EvaluationOptions options = quick({Metric::kAccuracy});
  options.status = ReferenceStatus::kReleasedWithNoise;
  const ImageSets sets = open_image_sets(request().corpus, reference);
  EXPECT_THAT(error_message<PrivacyError>([&] { evaluate(sets, nullptr, options); }),
              HasSubstr("these numbers are exact"));
}

TEST_F(ReleasedAccuracy, IsRefusedWhereThePlanDoesNotPayForIt) {
  start("without");
  draw_corpus("corpus", "without");
  EXPECT_THAT(refusal("without"),
              AllOf(HasSubstr("frozen without the evaluation that was asked for"),
                    HasSubstr("mechanism.stages.accuracy"), HasSubstr("before training")));
  start("plain", {"privacy.enabled=false"});
  EXPECT_THAT(refusal("plain"),
              AllOf(HasSubstr("ledger.jsonl' is not there"), HasSubstr("trained without privacy")));
  EXPECT_THROW((void)evaluate_with_noise(request("no_run")), UsageError);
}

TEST_F(ReleasedAccuracy, IsRefusedForARunOfASelection) {
  start("run", planned({"mechanism.selection.mean_runs=3", kAccuracy + "noise_multiplier=5",
                        "mechanism.noise_multiplier=5"}));
  fs::create_directories(folder / "corpus");
  write_file_atomic(folder / "corpus/privacy_card.json", "{}");
  EXPECT_THAT(refusal("run"), HasSubstr("private selection"));
}

TEST_F(ReleasedAccuracy, IsRefusedForARunThatIsNotFinished) {
  begin();
  copy_run("run", "early", 2);
  EXPECT_THAT(refusal("early"), AllOf(HasSubstr("is not finished"), HasSubstr("--resume")));
  EXPECT_THAT(ledger("early").stage_charges, IsEmpty());
}

TEST_F(ReleasedAccuracy, IsRefusedForNoiseOfATestKey) {
  TrainOptions options;
  options.noise_key = [] { return SecureKey::insecure_for_tests(1); };
  train(*config("run", planned()), false, options);
  draw_corpus("corpus", "run");
  EXPECT_THAT(refusal("run"), HasSubstr("is VOID"));
}

TEST_F(ReleasedAccuracy, NoiseOfATestKeyMakesTheRunVoid) {
  begin();
  const NoisyEvaluation made =
      evaluate_with_noise(request(), [] { return SecureKey::insecure_for_tests(1); });
  EXPECT_EQ(card_of()["status"], "void");
  EXPECT_THAT(evaluation_markdown(made.evaluation, made.corpus, made.reference),
              AllOf(HasSubstr("VOID: how many"), Not(HasSubstr("They may be shown"))));
  EXPECT_THAT(evaluation_html(made.evaluation, made.corpus, made.reference, {}),
              HasSubstr("banner alarm"));
}

TEST_F(ReleasedAccuracy, IsOfTheRunsOwnImages) {
  begin();
  write_tiny_store(folder / "other", first_records(30));
  EXPECT_THAT(refusal("run", "corpus", "other"),
              AllOf(HasSubstr("is not the record store of the run"), HasSubstr("other"),
                    HasSubstr("was trained on another")));
  EXPECT_THAT(refusal("run", "corpus", "corpus"), HasSubstr("is no record store"));
  EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
}

TEST_F(ReleasedAccuracy, IsOfACorpusThatTheRunDrew) {
  begin();
  start("twin", planned());
  draw_corpus("twins", "twin");
  EXPECT_THAT(refusal("run", "twins"),
              AllOf(HasSubstr("was not drawn from what the run"), HasSubstr("weights_sha256"),
                    HasSubstr("sfumato sample")));
  const auto expect_refused = [&](const std::string& text) {
    EXPECT_THAT(refusal("run", "corpus"), HasSubstr(text));
    draw_corpus("corpus", "run");
  };
  fs::remove(folder / "corpus/privacy_card.json");
  expect_refused("no privacy_card.json and lineage.json");
  for (const char* key : {"weights_sha256", "plan_hash", "data_manifest_hash"}) {
    Json card = card_of();
    card[key] = std::string(64, '0');
    write_file_atomic(folder / "corpus/privacy_card.json", card.dump());
    expect_refused(key);
  }
  Json card = card_of();
  card["status"] = "not_private";
  write_file_atomic(folder / "corpus/privacy_card.json", card.dump());
  expect_refused("claims no privacy");
  write_file_atomic(folder / "corpus/privacy_card.json", card_of().dump(1));
  expect_refused("lineage.json was written beside another card");
  EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
}

TEST_F(ReleasedAccuracy, WhatAnInterruptionLostIsSpent) {
  begin();
  forget_uses();
  charge_alone("accuracy");
  const std::string lines = ledger_bytes();
  EXPECT_THAT(refusal("run"),
              AllOf(HasSubstr("an interruption lost what it paid for"), HasSubstr("is spent"),
                    HasSubstr("stands as it is"), HasSubstr("--resume")));
  // Killed after the file was written: it is not known to be the one.
  write_file_atomic(folder / "run/release/accuracy.json", "{}");
  EXPECT_THAT(refusal("run"), HasSubstr("is not noted there; move it away"));
  EXPECT_EQ(ledger_bytes(), lines);
  fs::remove(folder / "run/release/accuracy.json");
  // The remedy that it names.
  EXPECT_THAT(problems(), Not(IsEmpty()));
  resume("run", planned());
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_EQ(card_of()["stages"][0]["charged"], 1);
}

TEST_F(ReleasedAccuracy, IsHeldAgainstTheLedger) {
  begin();
  evaluate_with_noise(request());
  const fs::path file = folder / "run/release/accuracy.json";
  const std::string released = read_file(file);
  NoisyAccuracy better = read_noisy_accuracy(file);
  better.classifiers[0].noisy_right_answers += 5;
  write_json_atomic(file, to_json(better));
  EXPECT_THAT(problems(), Contains(HasSubstr("accuracy.json")));
  EXPECT_THAT(refusal("run"), AllOf(HasSubstr("is another file"), HasSubstr("drawn once")));
  fs::remove(file);
  EXPECT_THAT(refusal("run"),
              AllOf(HasSubstr("is missing"), HasSubstr("put the released file back")));
  write_file_atomic(file, released);
  EXPECT_TRUE(evaluate_with_noise(request()).made_before);
  // A ledger that lost the charge, as whoever wants a second number would have it.
  std::vector<std::string> lines = lines_of(folder / "run/ledger.jsonl");
  std::erase_if(lines, [](const std::string& line) {
    return line.find("\"kind\":\"stage\"") != std::string::npos;
  });
  write_lines(folder / "run/ledger.jsonl", lines);
  EXPECT_THAT(problems(), Not(IsEmpty()));
  EXPECT_THAT(refusal("run"), HasSubstr("is damaged"));
}

TEST_F(ReleasedAccuracy, NothingIsAddedToARunThatDoesNotVerify) {
  begin();
  write_file_atomic(folder / "run/release/more.txt", "?");
  const std::string lines = ledger_bytes();
  EXPECT_THAT(refusal("run"), AllOf(HasSubstr("does not verify"), HasSubstr("more.txt")));
  EXPECT_EQ(ledger_bytes(), lines);
}

TEST_F(ReleasedAccuracy, ADamagedStoreIsNotMeasured) {
  begin();
  std::string bytes = read_file(folder / "store/records.bin");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file_atomic(folder / "store/records.bin", bytes);
  EXPECT_THAT(refusal<DataError>(request()), HasSubstr("records.bin"));
  EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
}

// Whoever copies a run to draw a second number from the copy is told by the record store.
TEST_F(ReleasedAccuracy, ACopyOfTheRunDrawsNoSecond) {
  begin();
  fs::copy(folder / "run", folder / "copy", fs::copy_options::recursive);
  evaluate_with_noise(request());
  EXPECT_THAT(refusal("copy"), HasSubstr("older copy"));
  EXPECT_THAT(ledger("copy").stage_charges, IsEmpty());
}

/// A store of which `prepare` held images out.
class HeldOutAccuracy : public ReleasedAccuracy {
 protected:
  HeldOutAccuracy() { hold_images_out(); }
};

TEST_F(HeldOutAccuracy, IsReleasedAndRememberedByBothStores) {
  start("run", {kAccuracy + "noise_multiplier=0.2", "data.holdout=0.2"});
  draw_corpus("corpus", "run");
  const NoisyEvaluationRequest asked = request("run", "corpus", "store-holdout");
  const NoisyEvaluation made = evaluate_with_noise(asked);
  const NoisyAccuracy file = read_noisy_accuracy(folder / "run/release/accuracy.json");
  EXPECT_EQ(file.tested_on, "held-out images");
  EXPECT_EQ(file.expected_records, 10.0) << "10 / 0.25 * 0.2 / 0.8";
  EXPECT_NEAR(file.classifiers.at(0).noisy_right_answers, by_hand(asked, ClassifierKind::kSmall, 0),
              4.9 * kNoise);
  EXPECT_EQ(made.evaluation.noise->tested_on, "held-out images");
  EXPECT_EQ(read_witnesses(folder / "store-holdout").size(), 1u);
  EXPECT_EQ(read_witnesses(folder / "store").at(0).stage_charges.at("accuracy"), 1);
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_THAT(refusal("run", "corpus", "store"), HasSubstr("held-out images"))
      << "on the other images it would be a second number";
}

TEST_F(HeldOutAccuracy, OfAnotherStoreIsRefused) {
  begin();
  EXPECT_THAT(refusal("run", "corpus", "others-holdout"),
              AllOf(HasSubstr("is not the record store of the run"), HasSubstr("held out")));
}

// The larger of the sums over the parts is what both together cost, for records of one of them.
TEST_F(HeldOutAccuracy, BesideAPartOfASplitIsRefused) {
  fs::remove_all(folder / "store");
  write_prepared(
      "store", first_records(kTinyRecords),
      {{"holdout", {{"pair", "p"}, {"by", "name"}}}, {"split_of", std::string(64, 'a')}});
  begin();
  EXPECT_THAT(refusal("run", "corpus", "store-holdout"), HasSubstr("a sweep has split"));
  EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
}

TEST_F(HeldOutAccuracy, OfAnotherUnitIsRefused) {
  begin();
  RecordStoreWriter writer(folder / "users-holdout", {8, 8, 1, 2, {"across", "down"}, true, 2});
  for (int i = 0; i < 16; ++i) writer.append(tiny_image(100 + i), i % 2, i / 2);
  writer.finish(nlohmann::json{{"held_out_of", {{"pair", "p"}}}});
  EXPECT_THAT(refusal("run", "corpus", "users-holdout"), HasSubstr("its unit of privacy is"));
}

TEST_F(HeldOutAccuracy, IsNotDividedByTheirExactNumber) {
  start("run", {kAccuracy + "noise_multiplier=0.2"});
  draw_corpus("corpus", "run");
  NoisyEvaluationRequest asked = request("run", "corpus", "store-holdout");
  EXPECT_THAT(refusal<UsageError>(asked), HasSubstr("--expected-records"));
  EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
  asked.expected_records = 20;
  evaluate_with_noise(asked);
  EXPECT_EQ(read_noisy_accuracy(folder / "run/release/accuracy.json").expected_records, 20);
}

}  // namespace
}  // namespace sfumato
