// A third stage: one section of settings and one row of the table are all that planning, budget,
// running, cards and verification need of it.
#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/mechanism/private_stages.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/gaussian_mechanism.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/card_alone.h"
#include "sfumato/run/run_verification.h"
#include "src/run/configuration_comparison.h"
#include "src/run/run_card.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

const std::string kHistogram = "mechanism.stages.label_histogram.";
const std::string kBrightness = "mechanism.stages.brightness.";

struct BrightnessSettings : StageSettings {
  explicit BrightnessSettings(SettingsTree* tree)
      : StageSettings(tree, {.name = "brightness",
                             .result = "brightness.json",
                             .help = "Noisy numbers of bright images.",
                             .noise = "Standard deviation of the noise on a number of images.",
                             .noise_unit = "images",
                             .share = "0.01 is plenty."}) {}
  StageSampling sampling() const override { return {0.5, releases()}; }

  Setting<int64_t> releases{this, "releases", 3, at_least(1), "", "Number of releases."};
};

struct MoreSettings : Config {
  BrightnessSettings brightness{this};
};

/// How many of the sampled images are bright on average.
void count_bright_images(const StageRun& run, const fs::path& file) {
  nlohmann::json counts = nlohmann::json::array();
  for (int64_t release = 0; release < executed_phase(run.plan).steps; ++release) {
    StatisticSum sum(1, 1, run.plan.clip_norm_l2);
    for (const int64_t record : run.session.sample(run.plan, run.store.count())) {
      double mean = 0;
      for (const uint8_t value : run.store.pixels(record)) mean += value / 255.0 / 64;
      const float one = mean > 0.3 ? 1 : 0;
      sum.add(0, {&one, 1});
    }
    counts.push_back(run.session.release(std::move(sum), run.plan).at(0));
  }
  write_json_atomic(file, counts);
}

std::vector<Stage> more_stages() {
  std::vector<Stage> table(stage_table().begin(), stage_table().end());
  table.push_back({.name = "brightness",
                   .clip_norm_l2 = [](const Config&) { return 1.0; },
                   .run = count_bright_images});
  return table;
}

class AddedStage : public TinyRun {
 protected:
  std::unique_ptr<MoreSettings> more(const std::vector<std::string>& changes) const {
    auto settings = std::make_unique<MoreSettings>();
    EXPECT_THAT(settings->read_yaml(config("run")->resolved_yaml(), "settings"), IsEmpty());
    for (const std::string& change : changes)
      EXPECT_EQ(settings->try_override(change), std::nullopt);
    return settings;
  }
  MechanismPlan plan(const Config& settings) const {
    return make_plan(settings, store.unit(), store.records_per_unit(), table);
  }
  MechanismSession begin(const MechanismPlan& plan, const RunDirectory& run) const {
    return MechanismSession::create(plan, {.ledger = run.ledger(), .run = run.path()},
                                    SecureKey::insecure_for_tests(1));
  }
  static const RunCheck& check_of(const RunVerification& run, const std::string& name) {
    for (const RunCheck& check : run.checks)
      if (check.name == name) return check;
    ADD_FAILURE() << "no check is called " << name;
    return run.checks.front();
  }

  const RecordStore store = RecordStore::open(folder / "store");
  const std::vector<Stage> table = more_stages();
};

TEST_F(AddedStage, SharesTheBudget) {
  const auto settings =
      more({"mechanism.noise_multiplier=null", "mechanism.target_epsilon=4",
            kHistogram + "share=0.02", kBrightness + "share=0.05", kBrightness + "releases=2"});
  validate_for_training(*settings);
  const MechanismPlan p = plan(*settings);
  ASSERT_EQ(p.stages.size(), 2u);
  EXPECT_EQ(p.stages[1].name, "brightness");
  EXPECT_EQ(p.stages[1].clip_norm_l2, 1);
  const Phase phase = executed_phase(p.stages[1]);
  EXPECT_EQ(phase.sample_rate, 0.5);
  EXPECT_EQ(phase.steps, 2);
  const double meant = gaussian_epsilon(std::sqrt(0.05) * gaussian_mu(4, p.delta), p.delta);
  const double alone =
      account_epsilon(Accountant::kPld, {&p.stages[1].event, 1}, p.delta, p.adjacency).epsilon;
  EXPECT_LE(alone, meant);
  EXPECT_GT(alone, 0.99 * meant);
  EXPECT_LE(p.epsilon_after(p.steps), 4);
  EXPECT_GT(p.epsilon_after(p.steps), 0.99 * 4);
}

TEST_F(AddedStage, ItsSettingsAreCheckedWithTheOthers) {
  const auto mistakes = [&](const std::vector<std::string>& changes) {
    return error_message<UsageError>([&] { validate_for_training(*more(changes)); });
  };
  EXPECT_THAT(mistakes({kBrightness + "noise_multiplier=1", kBrightness + "epsilon=1"}),
              AllOf(HasSubstr("mechanism.stages.brightness"), HasSubstr("more than one of")));
  EXPECT_THAT(mistakes({"mechanism.noise_multiplier=null", "mechanism.target_epsilon=4",
                        kHistogram + "share=0.5", kBrightness + "share=0.5"}),
              AllOf(HasSubstr("brightness.share"), HasSubstr("leaves nothing for training")));
  EXPECT_THAT(mistakes({"privacy.enabled=false", kBrightness + "noise_multiplier=1"}),
              HasSubstr("stages of the private mechanism are set"));
}

TEST_F(AddedStage, WithoutItsRowIsRefusedAndNotLeftOut) {
  const auto settings = more({kBrightness + "noise_multiplier=5"});
  EXPECT_THAT(error_message<PrivacyError>([&] { (void)make_plan(*settings, store); }),
              HasSubstr("this program has no stage 'brightness'"));
  const RunDirectory run = RunDirectory::create(folder / "run");
  MechanismSession session = begin(plan(*settings), run);
  EXPECT_THAT(
      error_message<PrivacyError>([&] { run_private_stages(*settings, store, run, session); }),
      HasSubstr("this program has no stage 'brightness'"));
}

TEST_F(AddedStage, RunsOnceAndIsVerified) {
  const auto settings =
      more({kHistogram + "noise_multiplier=6", kBrightness + "noise_multiplier=2"});
  const RunDirectory run = RunDirectory::create(folder / "run");
  MechanismSession session = begin(plan(*settings), run);
  run_private_stages(*settings, store, run, session, table);
  const fs::path file = run.release() / "brightness.json";
  EXPECT_EQ(session.ledger().charged_releases("brightness"), 3);
  EXPECT_EQ(session.ledger().result_of("brightness"), sha256_hex(read_file(file)));
  EXPECT_EQ(read_json(file).size(), 3u);
  run_private_stages(*settings, store, run, session, table);
  EXPECT_EQ(session.ledger().charged_releases("brightness"), 3) << "it is not repeated";

  RunVerificationOptions options;
  options.run = run.path();
  EXPECT_THAT(verify_run(options).problems(), Contains(HasSubstr("brightness.json")))
      << "a program without this stage";
  options.stages = stage_files(*settings);
  const RunVerification sound = verify_run(options);
  EXPECT_THAT(sound.problems(), IsEmpty());
  EXPECT_EQ(check_of(sound, "stage results").detail, "label_histogram, brightness as noted");

  const std::string released = read_file(file);
  write_file_atomic(file, "[20, 20, 20]");
  EXPECT_THAT(check_of(verify_run(options), "stage results").problems,
              ElementsAre(AllOf(HasSubstr("brightness.json"), HasSubstr("'brightness' released"))));
  EXPECT_THAT(error_message<PrivacyError>(
                  [&] { run_private_stages(*settings, store, run, session, table); }),
              HasSubstr("is not what the stage 'brightness' released"));
  fs::remove(file);
  EXPECT_THAT(error_message<PrivacyError>(
                  [&] { run_private_stages(*settings, store, run, session, table); }),
              HasSubstr("budget is spent"));
  write_file_atomic(file, released);
  EXPECT_NO_THROW(run_private_stages(*settings, store, run, session, table));
}

TEST_F(AddedStage, IsOnTheCard) {
  const auto settings = more({kBrightness + "noise_multiplier=5"});
  const std::string hash(64, 'c');
  PrivacyCard card = claim_card(plan(*settings), {6, {{"brightness", 3}}, {{"brightness", hash}}});
  describe_data(store, card);
  card.ledger_head_hash = card.weights_sha256 = std::string(64, 'a');
  describe_start(InitialWeights{}, card);
  const Json json = to_json(card);
  EXPECT_EQ(json["stages"][0]["name"], "brightness");
  EXPECT_EQ(json["stages"][0]["charged"], 3);
  EXPECT_EQ(json["stages"][0]["result_sha256"], hash);
  EXPECT_THAT(unfounded_fields(json, stage_files(*settings)), IsEmpty());
  EXPECT_THAT(unfounded_fields(json), Not(IsEmpty())) << "a name that no stage has is a sentence";
}

TEST_F(AddedStage, IsComparedWithTheFrozenPlan) {
  const auto settings = more({kBrightness + "noise_multiplier=5"});
  const MechanismPlan frozen = plan(*settings);
  EXPECT_THAT(configuration_differences(*settings, frozen), IsEmpty());
  for (const auto& [change, difference] :
       {std::pair{"noise_multiplier=6", "brightness.noise_multiplier is 6.0, in the ledger 5.0"},
        {"noise_multiplier=null", "brightness (on) is false, in the ledger true"},
        {"releases=4", "brightness.releases is 4, in the ledger 3"}})
    EXPECT_THAT(configuration_differences(
                    *more({kBrightness + "noise_multiplier=5", kBrightness + change}), frozen),
                ElementsAre(HasSubstr(difference)));
}

TEST(StageTable, EveryRowHasSettingsAndEverySectionARow) {
  std::vector<std::string> rows, sections;
  for (const Stage& stage : stage_table()) {
    rows.emplace_back(stage.name);
    EXPECT_EQ(stage.run == nullptr, stage.when == StageTime::kAfterRelease) << stage.name;
  }
  for (const StageFile& stage : stage_files()) {
    sections.push_back(stage.stage);
    EXPECT_EQ(stage.file.substr(0, stage.file.find('.')), stage.stage);
    EXPECT_NE(stage.stage, "train") << "what cards call training";
    EXPECT_FALSE(stage.stage.starts_with("declared_")) << "what plans call declared uses";
  }
  EXPECT_EQ(rows, sections);
}

}  // namespace
}  // namespace sfumato
