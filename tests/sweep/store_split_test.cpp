#include "sfumato/sweep/store_split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/json_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/store_uses.h"
#include "sfumato/sweep/planned_cost.h"
#include "sfumato/sweep/sweep_plan.h"
#include "sfumato/sweep/sweep_state.h"
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

/// Two sets of equal size that differ in one image, which in one of them is a copy of another:
/// where copies are left out, all images behind it move.
TEST_F(StoreSplits, AreRefusedWhereAnImageThatIsLeftOutMovesTheOthers) {
  for (const char* setting : {"deduplicate", "skip_unreadable"}) {
    const std::string name = std::string("with_") + setting;
    RecordStoreWriter writer(name, {4, 4, 1, 0, {}});
    writer.append(std::vector<std::uint8_t>(16), 0);
    nlohmann::json preparation = {{"deduplicate", false}, {"skip_unreadable", false}};
    preparation[setting] = true;
    writer.finish(preparation);
    EXPECT_THAT(
        error_message<PrivacyError>([&] { split_store(name, 0.25, Adjacency::kReplaceOne); }),
        HasSubstr("prepare it again with data." + std::string(setting) + "=false"));
    EXPECT_FALSE(fs::exists(name + "-tuning-0.25"));
  }
}

TEST_F(StoreSplits, LieBesideTheStoreHoweverItIsWritten) {
  for (const char* store : {"whole/", "./whole", "whole//"}) {
    const StoreParts parts = split_store(store, 0.25, Adjacency::kZeroOut);
    EXPECT_EQ(parts.tuning, "whole-tuning-0.25") << store;
    EXPECT_EQ(parts.final_run, "whole-final-0.25") << store;
  }
  EXPECT_TRUE(fs::exists("whole-tuning-0.25/manifest.json"));
}

TEST_F(StoreSplits, SayWhatWasHeldOutFromTheWhole) {
  const nlohmann::json held = {{"pair", "abc"}, {"by", "place"}};
  for (const std::string key : {"holdout", "held_out_of"}) {
    RecordStoreWriter writer(key, {4, 4, 1, 0, {}, false, 1});
    for (int i = 0; i < 20; ++i) writer.append(std::vector<std::uint8_t>(16), 0);
    writer.finish({{key, held}});
    const StoreParts parts = split_store(key, 0.25, Adjacency::kZeroOut);
    for (const fs::path& part : {parts.tuning, parts.final_run}) {
      EXPECT_EQ(read_json(part / "manifest.json")["preparation"][key], held);
      EXPECT_EQ(is_holdout(RecordStore::open(part)), key == "held_out_of");
    }
    EXPECT_NO_THROW(split_store(key, 0.25, Adjacency::kZeroOut)) << "recognised";
  }
}

TEST_F(StoreSplits, TakeNoNeighboursOfAnotherSize) {
  const RecordStore part =
      RecordStore::open(split_store("whole", 0.25, Adjacency::kZeroOut).final_run);
  EXPECT_THAT(
      error_message<PrivacyError>([&] { check_part_adjacency(part, Adjacency::kAddRemove); }),
      HasSubstr("a part of a record store"));
  EXPECT_NO_THROW(check_part_adjacency(part, Adjacency::kZeroOut));
  EXPECT_NO_THROW(check_part_adjacency(part, Adjacency::kReplaceOne));
  EXPECT_NO_THROW(check_part_adjacency(RecordStore::open("whole"), Adjacency::kAddRemove));
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

/// Sweeps on parts of `whole`, and runs as training leaves them.
class UsesOfParts : public StoreSplits {
 protected:
  UsesOfParts() {
    set_quiet(true);
    folder.write("base.yaml",
                 "data: {store: whole, image_size: 4, channels: 1}\n"
                 "mechanism: {steps: 5, noise_multiplier: 0.8, delta: 1.0e-5}\n");
  }
  ~UsesOfParts() override { set_quiet(false); }
  SweepPlan sweep(const std::string& name, const std::string& share) const {
    folder.write(name + ".yaml", "sweep: {name: " + name +
                                     ", base: base.yaml, purpose: disjoint_split, tuning_share: " +
                                     share + ", repeat: 2}\n");
    return open_sweep(name + ".yaml", true);
  }
  static MechanismPlan mechanism() {
    MechanismPlan plan;
    plan.sample_rate = parse_config("data: {store: whole}\n", "test")->mechanism.sample_rate();
    plan.noise_multiplier = 0.8;
    plan.steps = 5;
    plan.delta = 1e-5;
    return plan;
  }
  /// A run of five steps on `store`, of which it keeps a witness.
  static void train(const fs::path& place, const fs::path& store,
                    const MechanismPlan& plan = mechanism()) {
    fs::create_directories(place);
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::create(place / "ledger.jsonl", plan.to_json(), 5, key);
    for (int step = 0; step < 5; ++step) (void)ledger.charge(step, key);
    WitnessKeeper(store).write(ledger, place, true);
  }
  /// Of so many such runs on the same records.
  static double epsilon_of(int runs) {
    MechanismPlan plan = mechanism();
    plan.steps = 5 * runs;
    return plan.epsilon_after(plan.steps);
  }
  /// Of so many such runs after a sweep of two, which is one approximate release.
  static double epsilon_of_sweep_and(int runs) {
    const PrivacyEvent events[] = {ApproximateRelease{epsilon_of(2), 1e-5},
                                   mechanism().phase(5 * runs)};
    return account_epsilon(Accountant::kPld, events, 2.00000001e-5, Adjacency::kZeroOut).epsilon;
  }
  static double epsilon_of_whole() {
    const StoreSummary summary = summarize_store("whole");
    EXPECT_EQ(summary.why_not, "");
    return summary.together ? summary.together->epsilon : -1;
  }
  static std::string why_not() {
    const StoreSummary summary = summarize_store("whole");
    EXPECT_FALSE(summary.together);
    return summary.why_not;
  }
};

TEST_F(UsesOfParts, TheWholeKnowsBothAndCountsTheLarger) {
  const SweepPlan plan = sweep("s", "0.25");
  const fs::path tuning = "whole-tuning-0.25", final_run = "whole-final-0.25";
  EXPECT_THAT(why_not(), HasSubstr("no run has used"));
  note_tuning(plan);
  // Before any run, and when its own have left their witnesses: once.
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of(2), 1e-3);
  for (const SweepRun& run : plan.runs) train(places_of(plan, run).run, tuning);
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of(2), 1e-3);
  ASSERT_EQ(summarize_store("whole").runs.size(), 2u);
  EXPECT_TRUE(summarize_store("whole").runs[0].in_a_sweep);
  // The part that has paid less.
  train("final", final_run);
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of(2), 1e-3);
  const StoreRun last = summarize_store("whole").runs.back();
  EXPECT_EQ(last.part.filename(), final_run);
  EXPECT_FALSE(last.in_a_sweep);
  // And more.
  train("final2", final_run);
  train("final3", final_run);
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of(3), 1e-3);
  // What is trained beside the sweep on its part counts beside it, and so does the whole for both.
  train("beside", tuning);
  train("beside2", tuning);
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of_sweep_and(2), 1e-3);
  train("all", "whole");
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of_sweep_and(3), 1e-3);
  EXPECT_GT(epsilon_of_sweep_and(3), epsilon_of_sweep_and(2) + 0.01) << "or nothing is shown";
  EXPECT_GT(epsilon_of(3), epsilon_of(2) + 0.01);
}

TEST_F(UsesOfParts, ASecondSweepOnOnePartAddsUp) {
  note_tuning(sweep("a", "0.25"));
  note_tuning(sweep("b", "0.25"));
  EXPECT_NEAR(epsilon_of_whole(), 2 * epsilon_of(2), 1e-2) << "two approximate releases";
  EXPECT_GT(epsilon_of_whole(), epsilon_of(3));
}

TEST_F(UsesOfParts, AnotherShareIsRefusedOnceTheFirstWasUsed) {
  const SweepPlan first = sweep("a", "0.25"), planned = sweep("b", "0.5");
  note_tuning(first);
  note_tuning(planned);  // nothing was trained yet
  train("final", "whole-final-0.25");
  EXPECT_THAT(error_message<PrivacyError>([&] { note_tuning(planned); }),
              ::testing::AllOf(HasSubstr("by tuning_share 0.25"), HasSubstr("adds up")));
  EXPECT_NO_THROW(note_tuning(first));
  EXPECT_THAT(error_message<PrivacyError>([&] { sweep("c", "0.75"); }),
              HasSubstr("another record store"));
  EXPECT_FALSE(fs::exists("whole-tuning-0.75"));
  // Were both used all the same, what of them can meet in one record adds up.
  train("other", "whole-final-0.5");
  EXPECT_NEAR(epsilon_of_whole(), 2 * epsilon_of(2), 1e-2);
  train("other2", "whole-final-0.5");
  train("other3", "whole-final-0.5");
  EXPECT_GT(epsilon_of_whole(), epsilon_of(4));
}

TEST_F(UsesOfParts, OneThatIsGoneTakesTheSumAlong) {
  note_tuning(sweep("s", "0.25"));
  fs::rename("whole-final-0.25", "away");
  EXPECT_THAT(why_not(), HasSubstr("is gone"));
  EXPECT_THAT(error_message<PrivacyError>([] { split_store("whole", 0.25, Adjacency::kZeroOut); }),
              HasSubstr("put it back"));
  // Another folder of its name is none.
  folder.write_store("whole-final-0.25", 5);
  EXPECT_THAT(why_not(), HasSubstr("is gone"));
  fs::remove_all("whole-final-0.25");
  fs::rename("away", "whole-final-0.25");
  EXPECT_GT(epsilon_of_whole(), 0);
  // All three elsewhere, under other absolute paths.
  fs::create_directory("moved");
  for (const char* store : {"whole", "whole-tuning-0.25", "whole-final-0.25"})
    fs::rename(store, fs::path("moved") / store);
  EXPECT_TRUE(summarize_store("moved/whole").together);
}

/// A plan makes the parts; only a sweep that runs notes them.
TEST_F(UsesOfParts, AreFoundWithoutANote) {
  sweep("s", "0.25");
  EXPECT_THAT(why_not(), HasSubstr("no run has used"));
  train("final", "whole-final-0.25");
  ASSERT_EQ(summarize_store("whole").runs.size(), 1u);
  EXPECT_EQ(summarize_store("whole/").runs[0].part.filename(), "whole-final-0.25");
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of(1), 1e-3);
  train("tuning", "whole-tuning-0.25");
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of(1), 1e-3);
  train("all", "whole");
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of(2), 1e-3);
  // A second share.
  EXPECT_THAT(error_message<PrivacyError>([&] { sweep("other", "0.5"); }),
              ::testing::AllOf(HasSubstr("by tuning_share 0.25"), HasSubstr("adds up")));
  EXPECT_FALSE(fs::exists("whole-tuning-0.5"));
  EXPECT_NO_THROW(sweep("same", "0.25"));
  // Parts of parts.
  const StoreParts inner = split_store("whole-final-0.25", 0.5, Adjacency::kZeroOut);
  train("inner", inner.tuning);
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of(3), 1e-3);
  // A folder of such a name that is no part of this store.
  folder.write_store("whole-final-0.75", 5);
  train("stranger", "whole-final-0.75");
  EXPECT_NEAR(epsilon_of_whole(), epsilon_of(3), 1e-3);
}

TEST_F(UsesOfParts, ADearerRunInTheFolderOfASweepCountsBesides) {
  const SweepPlan plan = sweep("s", "0.25");
  note_tuning(plan);
  const fs::path runs = places_of(plan, plan.runs[0]).run.parent_path();
  const auto dear = [](double noise) {
    MechanismPlan mechanism = UsesOfParts::mechanism();
    mechanism.noise_multiplier = noise;
    return mechanism;
  };
  // Cheaper than both runs of the sweep together, and dearer than each; whatever its id is, which
  // is drawn, the sweep's own are those that are counted with it.
  const MechanismPlan other = dear(0.785);
  ASSERT_LT(other.epsilon_after(5), epsilon_of(2));
  ASSERT_GT(other.epsilon_after(5), epsilon_of(1) + 0.01);
  for (const SweepRun& run : plan.runs) train(places_of(plan, run).run, plan.store());
  for (int i = 0; i < 5; ++i) train(runs / ("by-hand-" + std::to_string(i)), plan.store(), other);
  for (const StoreRun& run : summarize_store("whole").runs)
    EXPECT_EQ(run.in_a_sweep, run.witness.plan.noise_multiplier == 0.8) << run.witness.place;
  // None that costs more than the whole sweep is one of its runs, though these are missing.
  const SweepPlan missing = sweep("t", "0.25");
  note_tuning(missing);
  const fs::path place = places_of(missing, missing.runs[0]).run.parent_path() / "by-hand";
  train(place, plan.store(), dear(0.4));
  for (const StoreRun& run : summarize_store("whole").runs)
    EXPECT_FALSE(run.in_a_sweep && run.witness.plan.noise_multiplier == 0.4);
}

/// At its own delta a run may look cheaper than one that costs less.
TEST_F(UsesOfParts, RunsOfASweepAreChosenAtOneDelta) {
  const SweepPlan plan = sweep("s", "0.25");
  note_tuning(plan);
  MechanismPlan other = mechanism();
  other.noise_multiplier = 0.785;
  ASSERT_GT(other.epsilon_after(5), epsilon_of(1) + 0.01);
  other.delta = 1e-2;
  ASSERT_LT(other.epsilon_after(5), epsilon_of(1));
  for (const SweepRun& run : plan.runs) train(places_of(plan, run).run, plan.store());
  train(places_of(plan, plan.runs[0]).run.parent_path() / "by-hand", plan.store(), other);
  for (const StoreRun& run : summarize_store("whole").runs)
    EXPECT_EQ(run.in_a_sweep, run.witness.plan.delta == mechanism().delta) << run.witness.place;
}

/// As what was trained on one of them knows records of the others, or was split from the same.
TEST_F(StoreSplits, AreRelatedToTheWholeAndToEachOther) {
  const auto names = [](const fs::path& store) {
    std::set<std::string> found;
    for (const fs::path& related : related_stores(store)) found.insert(related.filename());
    return found;
  };
  EXPECT_EQ(names("whole"), std::set<std::string>{"whole"});
  const StoreParts parts = split_store("whole", 0.25, Adjacency::kZeroOut);
  folder.write_store("whole-final-0.5", 5);  // no part of it
  const std::set<std::string> all = {"whole", "whole-tuning-0.25", "whole-final-0.25"};
  for (const fs::path& store : {fs::path("whole"), parts.tuning, parts.final_run}) {
    EXPECT_EQ(names(store), all) << store;
    EXPECT_EQ(related_stores(store)[0], store);
  }
  EXPECT_EQ(names("whole-final-0.5"), std::set<std::string>{"whole-final-0.5"});
  EXPECT_EQ(names("nowhere"), std::set<std::string>{"nowhere"});
  // One that was noted, and lies elsewhere.
  note_selection("whole", {.sweep = std::string(64, 'a'),
                           .place = "s",
                           .runs = 1,
                           .draw = "",
                           .epsilon = 1,
                           .delta = 1e-5,
                           .adjacency = Adjacency::kZeroOut,
                           .unit = "one image",
                           .records_per_unit = 1,
                           .parts = PartsUse{0.25, fs::absolute(parts.tuning),
                                             fs::absolute("away/whole-final-0.25")}});
  fs::create_directory("away");
  fs::rename(parts.final_run, "away/whole-final-0.25");
  EXPECT_EQ(names("whole"), all);
}

TEST_F(UsesOfParts, ThatDifferHaveNoSum) {
  note_tuning(sweep("s", "0.25"));
  MechanismPlan other = mechanism();
  other.adjacency = Adjacency::kReplaceOne;
  train("final", "whole-final-0.25", other);
  EXPECT_THAT(why_not(), HasSubstr("adjacency"));
}

}  // namespace
}  // namespace sfumato
