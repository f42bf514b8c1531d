// Names that people bring from other programs, and paths beside a configuration.
#include "sfumato/config/familiar_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "load_helpers.h"
#include "sfumato/config/paths.h"
#include "sfumato/core/file.h"
#include "support/error_message.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using test::error_message;
using test::load_text;
using test::mistakes_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(FamiliarNames, AreOfSettingsThatThereAre) {
  const Config config;
  std::set<std::string> names;
  for (const FamiliarName& row : familiar_names()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    const std::string setting = row.setting;
    EXPECT_TRUE(setting.empty() || config.find(setting) != nullptr) << row.name;
    EXPECT_FALSE(setting.empty() && row.is_alias()) << row.name << " says nothing";
    // Else the name would be the setting's own in its section.
    EXPECT_NE(setting.substr(setting.rfind('.') + 1), row.name);
  }
}

TEST(FamiliarNames, MeanTheSameInFilesAndOverrides) {
  const auto config =
      load_text("optimizer: {lr: 0.25}\nmechanism:\n  epsilon: 3\n  max_grad_norm: 0.5\n",
                {"performance.max_physical_batch_size=7"});
  EXPECT_EQ(config->optimizer.learning_rate(), 0.25);
  EXPECT_EQ(config->mechanism.target_epsilon(), 3);
  EXPECT_EQ(config->mechanism.clip_norm_l2(), 0.5);
  EXPECT_EQ(config->performance.physical_batch(), 7);
  EXPECT_THAT(config->resolved_yaml(),
              AllOf(HasSubstr("learning_rate: 0.25"), Not(HasSubstr("lr:"))));
  EXPECT_THAT(mistakes_of("optimizer: {lr: fast}\n"),
              ElementsAre(HasSubstr("optimizer.learning_rate: ")));
}

TEST(FamiliarNames, OnceIsEnough) {
  EXPECT_THAT(mistakes_of("optimizer:\n  learning_rate: 0.1\n  lr: 0.2\n"),
              ElementsAre(AllOf(HasSubstr("c.yaml:3:3"), HasSubstr("optimizer.learning_rate here"),
                                HasSubstr("remove one of the two"))));
}

TEST(FamiliarNames, WhatIsNotTheSameIsExplained) {
  for (const std::string name : {"epochs", "batch_size", "accumulation", "noise_scale"}) {
    EXPECT_THAT(mistakes_of("mechanism:\n  " + name + ": 5\n"),
                ElementsAre(HasSubstr("'" + name + "' is not quite ")));
    EXPECT_THAT(mistakes_of("", {name + "=5"}), ElementsAre(HasSubstr("is not quite ")));
  }
  EXPECT_THAT(mistakes_of("", {"lr=0.1"}), ElementsAre(HasSubstr("optimizer.learning_rate here")));
  EXPECT_THAT(mistakes_of("", {"training.lr=0.1"}),
              ElementsAre(HasSubstr("optimizer.learning_rate here")));
  EXPECT_THAT(mistakes_of("lr: 0.1\n"), ElementsAre(HasSubstr("optimizer.learning_rate here")));
  EXPECT_THAT(mistakes_of("diffusion: {Max-Grad-Norm: 1}\n"),
              ElementsAre(HasSubstr("mechanism.clip_norm_l2 here")));
}

// Stages repeat the names of others: epsilon, share, noise_multiplier, sample_rate, releases.
TEST(FamiliarNames, NobodyIsSentIntoAStage) {
  for (const char* name :
       {"epsilon", "share", "releases", "expected_class_batch", "noise_multipler"})
    for (const char* place : {"optimizer.", "", "training."})
      for (const std::string& mistake : mistakes_of("", {std::string(place) + name + "=1"}))
        EXPECT_THAT(mistake, Not(HasSubstr("mechanism.stages"))) << place << name;
  EXPECT_THAT(mistakes_of("", {"mechanism.stages.label_histogram.epsilonn=1"}),
              ElementsAre(HasSubstr("epsilon")));
  const auto config =
      load_text("", {"data.num_classes=2", "mechanism.stages.label_histogram.epsilon=0.1",
                     "mechanism.target_epsilon=5"});
  EXPECT_EQ(config->label_histogram.epsilon(), 0.1) << "a stage's own";
}

TEST(FamiliarNames, AreInTheGlossary) {
  const std::string glossary = read_file(test::source_folder() / "docs/glossary.md");
  for (const FamiliarName& row : familiar_names())
    EXPECT_THAT(glossary, HasSubstr("`" + std::string(row.name) + "`"));
}

TEST(Paths, LieBesideTheConfigurationToo) {
  const test::TempFolder folder;
  std::filesystem::create_directories(folder / "net");
  write_file_atomic(folder / "net/config.json", "{}");
  write_file_atomic(folder / "photos.zip", "");
  write_file_atomic(
      folder / "c.yaml",
      "model: {config: net/config.json}\ndata: {source: photos.zip/train, users: u.csv}\n");
  const auto config = load_config(folder / "c.yaml", {});
  EXPECT_EQ(config->model.config(), (folder / "net/config.json").string());
  EXPECT_EQ(config->data.source(), (folder / "photos.zip/train").string());
  EXPECT_EQ(config->data.store(), "stores/default") << "nobody set it";
  EXPECT_NO_THROW(require_paths({&config->model.config, &config->data.source}));
  EXPECT_THAT(error_message<DataError>([&] { require_paths({&config->data.users}); }),
              AllOf(HasSubstr("data.users"), HasSubstr("c.yaml:2"), HasSubstr("'u.csv'"),
                    HasSubstr("working folder '" + std::filesystem::current_path().string()),
                    HasSubstr("beside the configuration in '" + folder.path().string())));
  // Of the command line only the working folder counts.
  const std::vector<std::string> given = {"data.source=photos.zip"};
  EXPECT_EQ(load_config(folder / "c.yaml", given)->data.source(), "photos.zip");
}

}  // namespace
}  // namespace sfumato
