#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "audit/small_images.h"
#include "sfumato/core/error.h"
#include "sfumato/data/record_store.h"
#include "sfumato/evaluate/evaluation.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/run/witness.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class PublicReference : public testing::Test {
 protected:
  PublicReference() {
    made_ = store("made", 1);
    real_ = store("whole", 2);
  }
  fs::path store(const std::string& name, unsigned seed) {
    test::write_store(folder_ / name, test::random_images(20, seed));
    return folder_ / name;
  }
  /// A store that says this of its preparation.
  fs::path prepared(const std::string& name, const nlohmann::json& preparation) {
    RecordStoreWriter writer(folder_ / name, {8, 8, 1, 0, {}, false, 1});
    for (const test::Pixels& image : test::random_images(20, 5)) writer.append(image, 0);
    writer.finish(preparation);
    return folder_ / name;
  }
  void train(const fs::path& on, bool is_private) {
    MechanismPlan plan;
    plan.sample_rate = 0.1, plan.noise_multiplier = 2, plan.steps = 5;
    plan.is_private = is_private;
    const fs::path run = on.string() + "-run";
    fs::create_directories(run);
    const Ledger ledger =
        Ledger::create(run / "ledger.jsonl", plan.to_json(), 5, SecureKey::generate());
    WitnessKeeper(on).write(ledger, run, true);
  }
  std::string refused(const fs::path& reference, const fs::path& test = {}) {
    SetRequest of_made, of_reference, of_test;
    of_made.path = made_, of_reference.path = reference, of_test.path = test;
    const ImageSets sets = open_image_sets(of_made, of_reference);
    EvaluationOptions options;
    options.networks = {"pixels"};
    options.metrics = {Metric::kFrechetDistance};
    const auto run = [&] {
      if (test.empty()) return evaluate(sets, nullptr, options);
      const ImageSet tested = open_test_set(of_test, sets.reference);
      return evaluate(sets, &tested, options);
    };
    EXPECT_NO_THROW(run()) << "private pages may tell of it";
    options.status = ReferenceStatus::kDeclaredPublic;
    try {
      run();
    } catch (const PrivacyError& error) {
      EXPECT_THAT(error.what(), HasSubstr("Leave out --reference-is-public"));
      return error.what();
    }
    return "";
  }

  test::TempFolder folder_;
  fs::path made_, real_;
};

TEST_F(PublicReference, IsNoStoreThatSomethingTrainedOnPrivately) {
  EXPECT_EQ(refused(real_), "");
  train(real_, false);
  EXPECT_EQ(refused(real_), "") << "trained on without noise, as public images are";
  const fs::path other = store("other", 3);
  train(other, true);
  EXPECT_EQ(refused(real_), "") << "of other images";
  EXPECT_THAT(refused(other), HasSubstr("trained on it as private"));
  EXPECT_THAT(refused(real_, other), HasSubstr("'other' is not public"));
  train(made_, true);
  EXPECT_THAT(refused(real_), HasSubstr("'made' is not public")) << "as the corpus";
}

TEST_F(PublicReference, IsNoStoreThatASweepNotes) {
  note_selection(real_, {.sweep = "s",
                         .place = "sweeps/s",
                         .runs = 2,
                         .draw = "d",
                         .epsilon = 1,
                         .delta = 1e-5,
                         .unit = "one image",
                         .parts = std::nullopt});
  EXPECT_THAT(refused(real_), HasSubstr("sweeps/s"));
}

TEST_F(PublicReference, IsNoHoldoutAndNoPart) {
  const fs::path held = prepared("held", {{"held_out_of", {{"pair", "p"}, {"by", "name"}}}});
  EXPECT_THAT(refused(held), HasSubstr("held out"));
  EXPECT_THAT(refused(real_, held), HasSubstr("held out"));
  const fs::path part = prepared("part", part_origin(real_, 0.25, true));
  EXPECT_THAT(refused(part), HasSubstr("part of a private set"));
  EXPECT_EQ(refused(real_), "") << "nothing was trained on the part yet";
  train(part, true);
  EXPECT_THAT(refused(real_), AllOf(HasSubstr("part'"), HasSubstr("trained on it as private")));
}

TEST_F(PublicReference, IsNoCopyOfAStoreThatSomethingTrainedOnPrivately) {
  fs::copy(real_, folder_ / "copy", fs::copy_options::recursive);
  train(folder_ / "copy", true);
  EXPECT_THAT(refused(real_), HasSubstr("copy'"));
}

}  // namespace
}  // namespace sfumato
