#include "sfumato/train/setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/train/batch_loader.h"
#include "support/error_message.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using RunSetup = TinyRun;

/// A copy of the store, with a note of its preparation.
RecordStore copy_of(const RecordStore& store, const std::filesystem::path& place,
                    const nlohmann::json& preparation) {
  RecordStoreWriter writer(place, store.layout());
  for (int64_t i = 0; i < store.count(); ++i) writer.append(store.pixels(i), store.label(i));
  writer.finish(preparation);
  return RecordStore::open(place);
}

TEST_F(RunSetup, WhatWasHeldOutIsNeverTrainedOn) {
  const auto settings = config("run");
  const RecordStore store = RecordStore::open(settings->data.store());
  const RecordStore plain = copy_of(store, folder / "plain", {{"holdout", {{"pair", "a"}}}});
  EXPECT_NO_THROW(check_store_fits(plain, "", *settings));
  const RecordStore held = copy_of(store, folder / "held", {{"held_out_of", {{"pair", "a"}}}});
  EXPECT_THAT(error_message<UsageError>([&] { check_store_fits(held, "", *settings); }),
              HasSubstr("training never reads it"));
}

TEST_F(RunSetup, PartsOfASplitTakeNoNeighboursOfAnotherSize) {
  const auto settings = config("run", {"mechanism.adjacency=add_remove"});
  const RecordStore store = RecordStore::open(settings->data.store());
  EXPECT_NO_THROW(check_store_fits(store, "", *settings));
  const RecordStore part = copy_of(store, folder / "part", {{"split_of", "whole"}});
  EXPECT_THAT(error_message<PrivacyError>([&] { check_store_fits(part, "", *settings); }),
              HasSubstr("split by the places of its records"));
  EXPECT_NO_THROW(check_store_fits(part, "", *config("run")));
}

TEST_F(RunSetup, TheHolderHearsOfAnotherUnit) {
  const auto settings = config("run");
  const RecordStore store = RecordStore::open(settings->data.store());
  EXPECT_EQ(unit_misfit(store, settings->data), "");
  settings->data.records_per_user.set(4);
  EXPECT_EQ(unit_misfit(store, settings->data), "") << "without users it means nothing";
  settings->data.users.set("users.csv");
  EXPECT_THAT(unit_misfit(store, settings->data),
              AllOf(HasSubstr("'one image'"), HasSubstr("'one user, at most 4 images'")));
}

TEST_F(RunSetup, PatternsDecideWhatTrains) {
  const auto settings = config("run", {"model.trainable=[\"*.bias\", \"conv_in.*\"]"});
  const auto network = make_network(*settings);
  int trains = 0;
  for (const Parameter* p : network->parameters()) {
    const bool matches = p->name.ends_with(".bias") || p->name.starts_with("conv_in.");
    EXPECT_EQ(p->trainable, matches) << p->name;
    EXPECT_EQ(p->value.requires_grad(), matches) << p->name;
    trains += matches ? 1 : 0;
  }
  EXPECT_GT(trains, 10);
}

TEST_F(RunSetup, APatternWithoutAMatchIsAMistake) {
  EXPECT_THAT(error_message<UsageError>([&] {
                make_network(*config("run", {"model.trainable=[\"*\", \"conv_on.weight\"]"}));
              }),
              AllOf(HasSubstr("conv_on.weight"), HasSubstr("did you mean 'conv_in.weight'")));
}

TEST_F(RunSetup, SomeNetworkIsNeeded) {
  EXPECT_THAT(error_message<UsageError>([&] { make_network(*config("run", {"model.config="})); }),
              AllOf(HasSubstr("model.init"), HasSubstr("model.config")));
}

TEST_F(RunSetup, TheClassTableHasARowForNoLabelWhereLabelsAreDropped) {
  EXPECT_EQ(class_rows(*config("run", {"diffusion.label_dropout=0"})), 2);
  EXPECT_EQ(class_rows(*config("run", {"diffusion.label_dropout=0.1"})), 3);
  EXPECT_EQ(class_rows(*config("run", {"data.num_classes=0", "diffusion.label_dropout=0"})), 0);
  const auto network = make_network(*config("run"));
  for (const Parameter* p : network->parameters())
    if (p->name == "class_embedding.weight") {
      EXPECT_EQ(p->value.size(0), 3);
    }
}

TEST_F(RunSetup, TheSeedDecidesTheInitialWeights) {
  const auto weight = [&](const std::vector<std::string>& changes) {
    return make_network(*config("run", changes))->parameters()[0]->value.detach().clone();
  };
  EXPECT_TRUE(weight({}).equal(weight({})));
  EXPECT_FALSE(weight({}).equal(weight({"run.seed=4"})));
}

TEST_F(RunSetup, AStoreThatDoesNotFitIsRefused) {
  const RecordStore store = RecordStore::open(folder / "store");
  const auto settings = config("run");
  const auto check = [&](const UNet2DConfig& network, const Config& with) {
    check_store_fits(store, network_misfit(network, image_shape(store), with), with);
  };
  UNet2DConfig fits = make_network(*settings)->config();
  EXPECT_NO_THROW(check(fits, *settings));

  UNet2DConfig colour = fits;
  colour.in_channels = colour.out_channels = 3;
  EXPECT_THAT(error_message<DataError>([&] { check(colour, *settings); }),
              HasSubstr("1 channels, the network takes 3"));
  UNet2DConfig uneven = fits;
  uneven.out_channels = 2;
  EXPECT_THROW(check(uneven, *settings), DataError);
  UNet2DConfig deep = fits;
  deep.block_out_channels = {8, 8, 8, 8, 8};
  EXPECT_THAT(error_message<DataError>([&] { check(deep, *settings); }), HasSubstr("8x8"));
  EXPECT_THAT(
      error_message<DataError>([&] { check(fits, *config("run", {"data.num_classes=5"})); }),
      AllOf(HasSubstr("2 classes"), HasSubstr("5")));
  EXPECT_THAT(error_message<DataError>([&] { check(fits, *config("run", {"data.channels=3"})); }),
              AllOf(HasSubstr("1 channels"), HasSubstr("data.channels is 3 (command line)")));
  EXPECT_THAT(
      error_message<DataError>([&] { check(fits, *config("run", {"data.image_size=64"})); }),
      AllOf(HasSubstr("8 rows"), HasSubstr("data.image_size is 64 (command line)")));
  const auto swapped = config("run", {"data.class_names=down,across"});
  EXPECT_THAT(error_message<DataError>([&] { check(fits, *swapped); }),
              AllOf(HasSubstr("class 0"), HasSubstr("'down'")));
}

TEST_F(RunSetup, TheSizeOfTheStoresImagesIsKeptWhereNobodyNamedOne) {
  const auto silent = load_config(
      std::nullopt, std::vector<std::string>{"data.store=" + (folder / "store").string()});
  adopt_image_size(*silent);
  EXPECT_EQ(silent->data.image_size(), 8);
  EXPECT_EQ(silent->data.channels(), 1);
  EXPECT_EQ(silent->data.channels.provenance(), "the record store");
  const auto other = config("run", {"data.image_size=64"});
  adopt_image_size(*other);  // left for check_store_fits to refuse
  EXPECT_EQ(other->data.image_size(), 64);
}

TEST_F(RunSetup, NamesOfTheStoreAreKeptWithTheRun) {
  const auto settings = config("run");
  adopt_class_names(*settings);
  EXPECT_EQ(settings->data.class_names(), RecordStore::open(folder / "store").class_names());
  EXPECT_EQ(settings->data.class_names.provenance(), "the record store");
  const auto other = config("run", {"data.num_classes=5"});
  adopt_class_names(*other);  // left for check_store_fits to refuse
  EXPECT_TRUE(other->data.class_names().empty());
}

TEST_F(RunSetup, ThePlanIsTheConfigurationsAndTheStoresUnit) {
  RecordStoreWriter writer(folder / "users", {8, 8, 1, 2, {"across", "down"}, true, 3});
  for (int i = 0; i < 6; ++i) writer.append(tiny_image(i), i % 2, i / 3);
  writer.finish({});
  const auto settings =
      config("run", {"mechanism.clip_norm_l2=0.5", "mechanism.clipping=automatic",
                     "mechanism.automatic_gamma=0.2", "mechanism.adjacency=add_remove",
                     "mechanism.noise_multiplier=1.25", "mechanism.expected_batch_size=7"});
  const MechanismPlan plan = make_plan(*settings, RecordStore::open(folder / "users"));
  EXPECT_EQ(plan.sample_rate, 0.25);
  EXPECT_EQ(plan.steps, 6);
  EXPECT_EQ(plan.noise_multiplier, 1.25);
  EXPECT_EQ(plan.clip_norm_l2, 0.5);
  EXPECT_EQ(plan.clipping, Clipping::kAutomatic);
  EXPECT_EQ(plan.automatic_gamma, 0.2);
  EXPECT_EQ(plan.expected_batch_size, 7);
  EXPECT_EQ(plan.delta, 1e-3);
  EXPECT_EQ(plan.adjacency, Adjacency::kAddRemove);
  EXPECT_EQ(plan.unit, "one user, at most 3 images");
  EXPECT_EQ(plan.records_per_unit, 3);
  EXPECT_TRUE(plan.is_private);

  const ClipOptions clip = clip_options(plan);
  EXPECT_EQ(clip.clipping, Clipping::kAutomatic);
  EXPECT_EQ(clip.clip_norm_l2, 0.5);
  EXPECT_EQ(clip.automatic_gamma, 0.2);
}

// Public literals: nothing in the plan is computed from the private set.
TEST_F(RunSetup, ThePlanDoesNotDependOnTheNumberOfRecords) {
  write_tiny_store(folder / "smaller", first_records(11));
  const auto settings = config("run", {"mechanism.target_epsilon=8"});
  EXPECT_EQ(make_plan(*settings, RecordStore::open(folder / "store")).hash(),
            make_plan(*settings, RecordStore::open(folder / "smaller")).hash());
}

// Without a store too the plan is for the unit that prepare would write (doctor, plan, audits).
TEST_F(RunSetup, ThePlanOfAConfigurationIsThatOfItsStore) {
  const std::vector<std::string> changes = {"data.users=users.csv", "data.records_per_user=4",
                                            "mechanism.target_epsilon=8", "mechanism.steps=200",
                                            "mechanism.delta=1e-5"};
  RecordStoreWriter writer(folder / "users", {8, 8, 1, 2, {"across", "down"}, true, 4});
  for (int i = 0; i < 8; ++i) writer.append(tiny_image(i), i % 2, i / 4);
  writer.finish({});
  const auto settings = config("run", changes);
  const MechanismPlan plan = make_plan(*settings);
  EXPECT_EQ(plan.hash(), make_plan(*settings, RecordStore::open(folder / "users")).hash());
  EXPECT_EQ(plan.records_per_unit, 4);
  const auto images = config("run", {"data.records_per_user=4", "mechanism.target_epsilon=8",
                                     "mechanism.steps=200", "mechanism.delta=1e-5"});
  EXPECT_EQ(make_plan(*images).records_per_unit, 1) << "without data.users it does not matter";
  EXPECT_GT(plan.noise_multiplier, 2 * make_plan(*images).noise_multiplier);
}

TEST_F(RunSetup, BatchesThatDoNotFitTheStoreAreSaidPrivately) {
  MechanismPlan plan;
  plan.sample_rate = 0.05;
  plan.expected_batch_size = 21;
  EXPECT_EQ(batch_misfit(420, plan), "");
  EXPECT_EQ(batch_misfit(800, plan), "") << "an estimate need not be exact";
  plan.expected_batch_size = 500;
  const std::string divisor = batch_misfit(420, plan);
  EXPECT_THAT(divisor, AllOf(HasSubstr("420 images"), HasSubstr("hold 21 on average"),
                             HasSubstr("23.8 times as small"), StartsWith("private: ")));
  plan.expected_batch_size = 1;
  EXPECT_THAT(batch_misfit(40, plan),
              AllOf(HasSubstr("2 of them join a step on average"), Not(HasSubstr("divisor"))));
}

TEST_F(RunSetup, PrivateWarningsStayInThePrivatePartOfARun) {
  const auto settings = config("told", {"mechanism.expected_batch_size=500"});
  ::testing::internal::CaptureStderr();
  train(*settings, false);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), Not(HasSubstr("40 images")))
      << "nobody asked for it at the terminal";
  const std::filesystem::path file = folder / "told/private/warnings.txt";
  EXPECT_THAT(read_file(file), HasSubstr("40 images"));
  EXPECT_EQ(std::filesystem::status(file).permissions() & std::filesystem::perms::all,
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder / "told"))
    if (entry.is_regular_file() && entry.path().string().find("/private/") == std::string::npos) {
      EXPECT_THAT(read_file(entry.path()), Not(HasSubstr("40 images"))) << entry.path();
    }
  ::testing::internal::CaptureStderr();
  train(*config("shown", {"mechanism.expected_batch_size=500", "run.private_warnings=true"}),
        false);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("40 images"));
}

TEST_F(RunSetup, OptimizerOptionsAndRateScales) {
  const auto settings =
      config("run", {"optimizer.name=sgd", "optimizer.momentum=0.8", "optimizer.weight_decay=0.2",
                     "optimizer.class_embedding_learning_rate_scale=5"});
  const OptimizerOptions o = optimizer_options(*settings);
  EXPECT_EQ(o.kind, OptimizerKind::kSgd);
  EXPECT_EQ(o.momentum, 0.8);
  EXPECT_EQ(o.weight_decay, 0.2);
  EXPECT_EQ(optimizer_options(*config("run", {"optimizer.name=adam"})).kind, OptimizerKind::kAdam);
  EXPECT_EQ(optimizer_options(*config("run", {"optimizer.name=adamw"})).kind,
            OptimizerKind::kAdamW);
  const auto network = make_network(*settings);
  const std::vector<Parameter*> parameters = network->parameters();
  const std::vector<double> scales = rate_scales(*settings, parameters);
  ASSERT_EQ(scales.size(), parameters.size());
  for (std::size_t i = 0; i < scales.size(); ++i)
    EXPECT_EQ(scales[i], parameters[i]->name == "class_embedding.weight" ? 5.0 : 1.0);
}

TEST_F(RunSetup, WeightsTrainedOnTheSameStoreAreNotPublic) {
  // A run without privacy on the store itself, then a private one from its release.
  train(*config("open", {"privacy.enabled=false", "mechanism.steps=2"}), false);
  const std::string init = "model.init=" + (folder / "open" / "release").string();
  const auto start = [&](std::vector<std::string> changes) {
    changes.push_back("model.config=");
    train(*config("private", changes), false);
  };
  EXPECT_THAT(error_message<PrivacyError>([&] {
                start({init, "mechanism.steps=2"});
              }),
              HasSubstr("without privacy on this very record store"));
  // A private one costs what it spent.
  train(*config("first", {"mechanism.steps=2"}), false);
  const std::string again = "model.init=" + (folder / "first" / "release").string();
  EXPECT_THAT(error_message<PrivacyError>([&] {
                start({again, "mechanism.steps=2"});
              }),
              HasSubstr("mechanism.declared"));
  EXPECT_NO_THROW(start({again, "mechanism.steps=2", "mechanism.declared=[\"0.3:1:2\"]"}));
}

}  // namespace
}  // namespace sfumato
