// Both stages of an evaluation, one or the other; requests that meet; sessions that end.
#include "sfumato/evaluate/noisy_evaluation.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "evaluate/noisy_evaluation_fixture.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/mechanism/accuracy.h"
#include "sfumato/mechanism/frechet_distance.h"

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
using ::testing::SizeIs;

const std::string kAccuracy = "mechanism.stages.accuracy.noise_multiplier=0.5";
const std::string kFrechet = "mechanism.stages.frechet_distance.noise_multiplier=0.5";
const std::string kFew = "mechanism.stages.frechet_distance.dimension=4";

class NoisyEvaluations : public NoisyEvaluationTest {
 protected:
  void begin(const std::vector<std::string>& changes) const {
    start("run", changes);
    draw_corpus("corpus", "run");
  }
  NoisyEvaluationRequest request_of(const std::vector<Metric>& metrics) const {
    NoisyEvaluationRequest out = request();
    out.options.metrics = metrics;
    return out;
  }
  static std::vector<double> values_of(const NoisyEvaluation& made) {
    std::vector<double> values;
    for (const Measurement& one : made.evaluation.measurements) values.push_back(one.value);
    return values;
  }
};

TEST_F(NoisyEvaluations, OfBothStagesIsOneSession) {
  begin({kAccuracy, kFrechet, kFew});
  const size_t sessions = ledger("run").sessions.size();
  const NoisyEvaluation made = evaluate_with_noise(request_of({}));
  EXPECT_THAT(made.files, ElementsAre(folder / "run/release/accuracy.json",
                                      folder / "run/release/frechet_distance.json"));
  const LedgerSummary found = ledger("run");
  EXPECT_THAT(found.problems, IsEmpty());
  EXPECT_THAT(found.stage_charges, ElementsAre(Pair("accuracy", 1), Pair("frechet_distance", 1)));
  EXPECT_THAT(found.stage_results, SizeIs(2));
  EXPECT_EQ(found.sessions.size(), sessions + 1);
  EXPECT_EQ(found.last_event, "stop");
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_EQ(measured(made.evaluation, "accuracy").value,
            read_noisy_accuracy(made.files[0]).classifiers.at(0).noisy_right_answers / 40);
  EXPECT_EQ(measured(made.evaluation, "frechet_distance_noisy").value,
            read_noisy_frechet_distance(made.files[1]).distance);
  EXPECT_THAT(evaluation_markdown(made.evaluation, made.corpus, made.reference),
              AllOf(HasSubstr("how many private training images"), HasSubstr("sums of features"),
                    HasSubstr("They are stages of the run's mechanism")));
  const std::string lines = ledger_bytes();
  const NoisyEvaluation again = evaluate_with_noise(request_of({}));
  EXPECT_TRUE(again.made_before);
  EXPECT_EQ(values_of(again), values_of(made));
  EXPECT_EQ(ledger_bytes(), lines);
}

TEST_F(NoisyEvaluations, OfWhatIsLeftKeepWhatWasMade) {
  begin({kAccuracy, kFrechet, kFew});
  const NoisyEvaluation first = evaluate_with_noise(request_of({Metric::kFrechetDistance}));
  EXPECT_THAT(ledger("run").stage_charges, ElementsAre(Pair("frechet_distance", 1)));
  EXPECT_THAT(problems(), IsEmpty());
  const NoisyEvaluation both = evaluate_with_noise(request_of({}));
  EXPECT_FALSE(both.made_before);
  EXPECT_EQ(measured(both.evaluation, "frechet_distance_noisy").value,
            measured(first.evaluation, "frechet_distance_noisy").value);
  EXPECT_THAT(ledger("run").stage_charges,
              ElementsAre(Pair("accuracy", 1), Pair("frechet_distance", 1)));
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(NoisyEvaluations, OfWhatThePlanDoesNotPayForAreRefused) {
  begin({kAccuracy});
  EXPECT_THAT(refusal(request_of({Metric::kAccuracy, Metric::kFrechetDistance})),
              AllOf(HasSubstr("frozen without the evaluation that was asked for"),
                    HasSubstr("mechanism.stages.frechet_distance"),
                    Not(HasSubstr("mechanism.stages.accuracy"))));
  EXPECT_THAT(refusal<UsageError>(request_of({Metric::kKid})),
              HasSubstr("kid is not released with noise"));
  NoisyEvaluationRequest with_weights = request_of({});
  with_weights.options.weights = folder / "weights";
  EXPECT_THAT(refusal<UsageError>(with_weights), HasSubstr("leave out --weights"));
  EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
  start("without");
  NoisyEvaluationRequest asked = request_of({});
  asked.run = folder / "without";
  EXPECT_THAT(refusal(asked), AllOf(HasSubstr("frozen without an evaluation"),
                                    HasSubstr("stages.accuracy or mechanism.stages.frechet")));
}

// While one measures another may come first: its numbers are those of both, and no session begins.
TEST_F(NoisyEvaluations, TakeWhatAnotherRequestHasReleasedMeanwhile) {
  begin({kAccuracy});
  std::string lines;
  std::vector<double> first;
  const NoisyEvaluation later = evaluate_with_noise(request(), [&] {
    first = values_of(evaluate_with_noise(request()));
    lines = ledger_bytes();
    return SecureKey::generate();
  });
  EXPECT_TRUE(later.made_before);
  EXPECT_EQ(values_of(later), first);
  EXPECT_EQ(ledger_bytes(), lines);
  EXPECT_THAT(ledger("run").problems, IsEmpty());
}

TEST_F(NoisyEvaluations, EndTheirSessionWhateverBreaksThem) {
  begin({kAccuracy});
  const fs::path file = folder / "run/release/accuracy.json";
  EXPECT_THROW((void)evaluate_with_noise(request(),
                                         [&] {
                                           // Where a file should be: it cannot be written.
                                           fs::create_directories(file / "in the way");
                                           return SecureKey::generate();
                                         }),
               DataError);
  const LedgerSummary found = ledger("run");
  EXPECT_THAT(found.stage_charges, ElementsAre(Pair("accuracy", 1)));
  EXPECT_EQ(found.last_event, "stop");
  EXPECT_THAT(found.problems, IsEmpty());
  fs::remove_all(file);
  EXPECT_THAT(refusal("run"), HasSubstr("is spent"));
}

// Measuring takes minutes, in which a copy of the run may release the same.
TEST_F(NoisyEvaluations, OfARunThatTheStoreForgetsMeanwhileAreRefused) {
  begin({kAccuracy});
  const fs::path uses = folder / "store/uses", elsewhere = folder / "uses";
  const auto refused = [&](const std::function<void()>& fault) {
    const std::string message = error_message<PrivacyError>([&] {
      (void)evaluate_with_noise(request(), [&] {
        fault();
        return SecureKey::generate();
      });
    });
    EXPECT_FALSE(fs::exists(folder / "run/release/accuracy.json"));
    EXPECT_THAT(ledger("run").stage_charges, IsEmpty());
    return message;
  };
  EXPECT_THAT(refused([&] { fs::rename(uses, elsewhere); }),
              HasSubstr("does not remember the run"));
  fs::remove_all(uses);
  write_file_atomic(uses, "in the way");  // as good as read-only, also for root
  EXPECT_THAT(refusal("run"), HasSubstr("has no witness")) << "before anything is measured";
  fs::remove(uses);
  fs::rename(elsewhere, uses);
  EXPECT_THAT(refused([&] {
                fs::rename(uses, elsewhere);
                write_file_atomic(uses, "in the way");
              }),
              HasSubstr("cannot remember"));
  fs::remove(uses);
  fs::rename(elsewhere, uses);
  EXPECT_NO_THROW(evaluate_with_noise(request())) << "nothing was spent";
}

// Each store would remember its own copy of the run alone.
TEST_F(NoisyEvaluations, OfARunCopiedWithItsStoreAreRefusedWhereTheFirstStillLies) {
  begin({kAccuracy});
  const fs::path there = folder / "there";
  fs::create_directories(there);
  for (const char* name : {"run", "store"})
    fs::copy(folder / name, there / name, fs::copy_options::recursive);
  std::string settings = read_file(there / "run/config.yaml");
  const std::string store = (folder / "store").string();
  ASSERT_NE(settings.find(store), std::string::npos);
  settings.replace(settings.find(store), store.size(), (there / "store").string());
  write_file_atomic(there / "run/config.yaml", settings);
  NoisyEvaluationRequest asked = request("there/run", "corpus", "there/store");
  EXPECT_THAT(refusal(asked), AllOf(HasSubstr("where it still lies"), HasSubstr("is a copy")));
  EXPECT_THAT(ledger("there/run").stage_charges, IsEmpty());
  // One that was moved is no copy.
  fs::rename(folder / "run", folder / "elsewhere");
  EXPECT_FALSE(evaluate_with_noise(asked).made_before);
}

// Whoever changed it now could have looked at the images before.
TEST_F(NoisyEvaluations, OfOtherSettingsThanTheFrozenAreRefused) {
  begin({kAccuracy, kFrechet, kFew});
  const fs::path file = folder / "run/config.yaml";
  const std::string settings = read_file(file), lines = ledger_bytes();
  for (const auto& [line, change] :
       {std::pair{"features: scattering", "features: pixels"},
        std::pair{"dimension: 4", "dimension: 3"}, std::pair{"classifiers: 1", "classifiers: 2"},
        std::pair{"expected_records: 0", "expected_records: 7"}}) {
    const std::size_t section = settings.find(
        std::string(line).starts_with("classifiers") ? "accuracy:" : "frechet_distance:");
    const std::size_t at = settings.find(line, section);
    ASSERT_NE(at, std::string::npos) << line;
    std::string changed = settings;
    write_file_atomic(file, changed.replace(at, std::string(line).size(), change));
    EXPECT_THAT(problems(), Contains(AllOf(HasSubstr("(what is measured)"),
                                           HasSubstr("put back the configuration"))))
        << line;
    EXPECT_THAT(refusal(request_of({})), HasSubstr("(what is measured)")) << line;
  }
  EXPECT_EQ(ledger_bytes(), lines);
  write_file_atomic(file, settings);
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_FALSE(evaluate_with_noise(request_of({})).made_before);
}

}  // namespace
}  // namespace sfumato
