// The table of families: which one a configuration names, and whose a folder is.
#include "sfumato/generate/families.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using test::error_message;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// A second family, as far as it is told apart.
Family painter() {
  Family family;
  family.name = "painter";
  family.layout = "painter/config.json";
  family.holds = [](const fs::path& folder) {
    return fs::exists(folder / "painter" / "config.json");
  };
  return family;
}

const bool kInTheTable = [] {
  add_family(painter());
  return true;
}();

class Families : public ::testing::Test {
 protected:
  /// The name of the family that a folder with these files belongs to.
  std::string family_with(const std::vector<std::pair<std::string, std::string>>& files) {
    const fs::path place = folder_ / std::to_string(count_++);
    fs::create_directory(place);
    for (const auto& [name, text] : files) {
      fs::create_directories((place / name).parent_path());
      write_file_atomic(place / name, text);
    }
    const Family* family = family_in(place);
    return family == nullptr ? "none" : family->name;
  }

  test::TempFolder folder_;
  int count_ = 0;
};

TEST_F(Families, AnUnknownOneIsRefusedWithPlaceAndNames) {
  ASSERT_TRUE(kInTheTable);
  write_file_atomic(folder_ / "c.yaml", "model:\n  trainable: [\"*\"]\n  family: difusion\n");
  const auto from_file = load_config(folder_ / "c.yaml", {});
  const std::string wanted =
      (folder_ / "c.yaml").string() +
      ":3: model.family: must be one of diffusion, gan, painter, got 'difusion'; did you mean "
      "'diffusion'?";
  // Also where there is no network whose files would be looked at.
  EXPECT_EQ(error_message<UsageError>([&] { adopt_pretrained_settings(*from_file); }), wanted);
  EXPECT_EQ(error_message<UsageError>([&] { adopt_pretrained_image_settings(*from_file); }),
            wanted);
  EXPECT_EQ(error_message<UsageError>([&] { make_generator(*from_file, {}); }), wanted);
  EXPECT_EQ(error_message<UsageError>([&] { open_generator(folder_.path(), *from_file, {}); }),
            wanted);
  const std::vector<std::string> overrides = {"model.family=autoregressive"};
  const auto from_command = load_config(std::nullopt, overrides);
  EXPECT_EQ(
      error_message<UsageError>([&] { family_of(*from_command); }),
      "command line: model.family: must be one of diffusion, gan, painter, got 'autoregressive'");
}

TEST_F(Families, TheHelpOfTheSettingNamesThoseOfTheTable) {
  const auto config = load_config(std::nullopt, {});
  std::string names;
  for (const Family& family : families())
    if (family.name != "painter") names += (names.empty() ? "" : " or ") + family.name;
  EXPECT_EQ(config->model.family.help(), "Family of the generator that is trained: " + names + ".");
  EXPECT_EQ(family_of(*config).name, families().front().name);  // the default
}

TEST_F(Families, SettingsOfAnotherFamilyAreRefusedForANewRun) {
  ASSERT_TRUE(kInTheTable);
  const std::string file = (folder_ / "c.yaml").string();
  const auto with = [&](const std::string& yaml) {
    write_file_atomic(folder_ / "c.yaml", yaml);
    return load_config(folder_ / "c.yaml", {});
  };
  const auto gan = with(
      "model:\n  family: gan\ndiffusion:\n  draws: 4\n  schedule: linear\n  label_dropout: 0.1\n"
      "gan:\n  fakes: 3\n");
  EXPECT_EQ(error_message<UsageError>([&] { adopt_pretrained_settings(*gan); }),
            file + ":4: diffusion.draws is 4, and has no effect with model.family gan (" + file +
                ":2); remove it, or set it to its default, 1\n" + file +
                ":6: diffusion.label_dropout is 0.1, and has no effect with model.family gan (" +
                file + ":2); remove it, or set it to its default, 0");
  EXPECT_NO_THROW(adopt_pretrained_settings(*gan, /*resume=*/true));  // began with them, goes on
  const auto diffusion = with("diffusion:\n  draws: 4\ngan:\n  fakes: 3\n");
  EXPECT_THAT(
      error_message<UsageError>([&] { adopt_pretrained_settings(*diffusion); }),
      AllOf(HasSubstr(file + ":4: gan.fakes is 3"), HasSubstr("model.family diffusion (default)")));
  const auto neither =
      with("model:\n  family: painter\ngan:\n  fakes: 3\ndiffusion:\n  draws: 4\n");
  EXPECT_THAT(error_message<UsageError>([&] { adopt_pretrained_settings(*neither); }),
              AllOf(HasSubstr("gan.fakes"), HasSubstr("diffusion.draws")));
  // A run's own configuration names every setting; a new run may begin from it.
  EXPECT_NO_THROW(adopt_pretrained_settings(
      *with(load_config(std::nullopt, std::vector<std::string>{"model.family=gan", "gan.fakes=3"})
                ->resolved_yaml())));
}

TEST_F(Families, AFolderOfNoneIsRefusedWithWhatIsLookedFor) {
  const auto config = load_config(std::nullopt, {});
  EXPECT_THAT(
      error_message<DataError>([&] { open_generator(folder_.path(), *config, {}); }),
      AllOf(HasSubstr("'" + folder_.path().string() + "' holds no generator"),
            HasSubstr("diffusion: model_index.json, or unet/config.json or config.json of a "
                      "diffusers UNet2DModel"),
            HasSubstr("painter: painter/config.json"), HasSubstr("name a folder")));
}

TEST_F(Families, TellFoldersApartByWhatTheirFilesSay) {
  const std::string unet = R"({"_class_name": "UNet2DModel", "sample_size": 8})";
  const std::string old_unet = R"({"block_out_channels": [8, 16], "in_channels": 1})";
  const std::string other = R"({"_class_name": "Painter", "in_channels": 1, "sample_size": 8})";
  EXPECT_EQ(family_with({}), "none");
  EXPECT_EQ(family_with({{"config.json", unet}}), "diffusion");
  EXPECT_EQ(family_with({{"config.json", old_unet}}), "diffusion");
  EXPECT_EQ(family_with({{"unet/config.json", unet}}), "diffusion");
  EXPECT_EQ(family_with({{"model_index.json", "{}"}}), "diffusion");  // open() says what is missing
  EXPECT_EQ(family_with({{"config.json", other}}), "none");
  EXPECT_EQ(family_with({{"config.json", "[]"}}), "none");
  EXPECT_EQ(family_with({{"unet/config.json", other}}), "none");
  EXPECT_EQ(family_with({{"painter/config.json", other}}), "painter");
  EXPECT_EQ(family_with({{"painter/config.json", other}, {"config.json", other}}), "painter");
  EXPECT_EQ(family_with({{"generator/config.json", other}}), "gan");  // open() names the class
  EXPECT_EQ(family_with({{"config.json", R"({"_class_name": "DCGANGenerator"})"}}), "gan");
  EXPECT_EQ(family_with({{"config.json", R"({"_class_name": "DCGANDiscriminator"})"}}), "none");
  // Refused by its own family, by name.
  EXPECT_EQ(family_with({{"config.json", R"({"_class_name": "UNet2DConditionModel"})"}}),
            "diffusion");
  EXPECT_THAT(error_message<DataError>([&] {
                family_with({{"config.json", "{"}});
              }),
              HasSubstr("config.json"));
}

TEST_F(Families, HaveOneRowEach) {
  EXPECT_THROW(add_family(painter()), std::logic_error);
  Family again = painter();
  again.name = "diffusion";
  EXPECT_THROW(add_family(again), std::logic_error);
  EXPECT_EQ(families().size(), 3U);
}

}  // namespace
}  // namespace sfumato
