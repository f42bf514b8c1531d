// Networks by their config.json: whose they are, what they say, and which are of no family.
#include "sfumato/generate/network_description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/generate/families.h"
#include "support/error_message.h"
#include "support/shared_folder.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using test::error_message;
using ::testing::AllOf;
using ::testing::HasSubstr;

const fs::path kPublic = test::source_folder() / "models/public";

class NetworkDescriptions : public ::testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    write_file_atomic(folder_ / name, text);
  }
  test::TempFolder folder_;
};

TEST_F(NetworkDescriptions, SayWhoseANetworkIsAndWhatItDraws) {
  const auto unet = find_networks(kPublic / "glyphs");
  ASSERT_EQ(unet.size(), 1U);
  EXPECT_EQ(unet[0].family->name, "diffusion");
  EXPECT_EQ(unet[0].says.class_name, "UNet2DModel");
  const auto pair = find_networks(kPublic / "glyphs-gan");
  ASSERT_EQ(pair.size(), 2U);  // the one that draws comes first
  EXPECT_EQ(pair[0].says.class_name, "DCGANGenerator");
  EXPECT_EQ(pair[1].says.class_name, "DCGANDiscriminator");
  for (const FoundNetwork& each : pair) {
    EXPECT_EQ(each.family->name, "gan");
    EXPECT_EQ(each.says.channels, 1);
    EXPECT_EQ(each.says.size, (std::array<std::int64_t, 2>{28, 28}));
    EXPECT_EQ(each.says.classes, 52);
    const auto alone = find_networks(each.file);
    ASSERT_EQ(alone.size(), 1U);
    EXPECT_EQ(alone[0].says.config, each.says.config);
    EXPECT_EQ(alone[0].says.role, each.says.role);
  }
}

TEST_F(NetworkDescriptions, ANetworkInTheFolderOfAnotherIsRefused) {
  put("generator/config.json", read_file(kPublic / "glyphs-gan/discriminator/config.json"));
  EXPECT_THAT(error_message<DataError>([&] { find_networks(folder_.path()); }),
              AllOf(HasSubstr("DCGANDiscriminator"), HasSubstr("a generator belongs there")));
}

TEST_F(NetworkDescriptions, OneOfNoFamilyIsNamedByItsClass) {
  EXPECT_FALSE(may_hold_networks(folder_.path()));
  put("config.json", R"({"_class_name": "AutoencoderKL"})");
  EXPECT_TRUE(may_hold_networks(folder_.path()));
  EXPECT_THAT(error_message<DataError>([&] { find_networks(folder_.path()); }),
              AllOf(HasSubstr("is of a AutoencoderKL"), HasSubstr(known_layouts())));
  // A mistake in a network of a family is told as such.
  put("config.json", R"({"_class_name": "DCGANGenerator"})");
  EXPECT_THAT(error_message<DataError>([&] { find_networks(folder_.path()); }),
              AllOf(HasSubstr("config.json"), HasSubstr("block_out_channels: is missing")));
}

}  // namespace
}  // namespace sfumato
