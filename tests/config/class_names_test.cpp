// The settings that list the classes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "load_helpers.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using test::load_text;
using test::mistakes_of;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

TEST(ClassNames, DecideTheNumberOfClasses) {
  const auto config = load_text("data:\n  class_names: [cat, 7, \"on\"]\n");
  EXPECT_EQ(config->data.num_classes(), 3);
  EXPECT_THAT(config->data.class_names(), ElementsAre("cat", "7", "on"));
  EXPECT_EQ(load_text("", {"data.class_names=[\"a, b\",c]"})->data.num_classes(), 2);
  EXPECT_THAT(mistakes_of("data: {class_names: [cat, dog], num_classes: 3}"),
              ElementsAre(AllOf(HasSubstr("has 2 names"), HasSubstr("data.num_classes"))));
  EXPECT_THAT(mistakes_of("data: {class_names: [cat, cat]}"), ElementsAre(HasSubstr("twice")));
  EXPECT_THAT(mistakes_of("data: {class_names: [\"\", \"a\\tb\"]}"), SizeIs(2));
  // What a run keeps reads back to the same.
  const std::string resolved = config->resolved_yaml();
  EXPECT_THAT(load_text(resolved)->data.class_names(), ElementsAre("cat", "7", "on"));
}

TEST(ClassNames, ComeFromAFile) {
  const test::TempFolder folder;
  const std::string file = (folder / "names.txt").string();
  std::ofstream(file) << "cat\nguinea pig\n";
  const std::string setting = "data.class_names_file=" + file;
  const auto config = load_text("", {setting});
  EXPECT_THAT(config->data.class_names(), ElementsAre("cat", "guinea pig"));
  EXPECT_EQ(config->data.num_classes(), 2);
  EXPECT_EQ(config->data.class_names.provenance(), "data.class_names_file");
  EXPECT_EQ(config->resolved_yaml().find(file), std::string::npos) << "a path is told";
  std::filesystem::remove(file);
  EXPECT_THAT(load_text(config->resolved_yaml())->data.class_names(),
              ElementsAre("cat", "guinea pig"));
  EXPECT_THAT(mistakes_of("", {setting}), ElementsAre(HasSubstr("names.txt")));
  EXPECT_THAT(mistakes_of("", {setting, "data.class_names=a,b"}),
              ElementsAre(HasSubstr("both set")));
}

}  // namespace
}  // namespace sfumato
