#include "sfumato/report/report_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

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

unsigned mode_of(const fs::path& path) {
  struct stat info {};
  EXPECT_EQ(::lstat(path.c_str(), &info), 0) << path;
  return info.st_mode & 0777;
}

class ReportFolderTest : public testing::Test {
 protected:
  std::string refusal(const fs::path& path) {
    return error_message<UsageError>([&] { ReportFolder{path}; });
  }
  void put(const fs::path& path) {
    fs::create_directories(path.parent_path());
    write_file_atomic(path, "x");
  }
  test::TempFolder folder_;
};

TEST_F(ReportFolderTest, IsForItsOwnerOnly) {
  const mode_t before = ::umask(0);
  const ReportFolder report(folder_ / "run/private/audit");
  report.write("page.html", "text");
  ::umask(before);
  EXPECT_EQ(mode_of(folder_ / "run/private"), 0700u);
  EXPECT_EQ(mode_of(folder_ / "run/private/audit"), 0700u);
  EXPECT_EQ(mode_of(folder_ / "run/private/audit/page.html"), 0600u);
  EXPECT_EQ(read_file(folder_ / "run/private/audit/page.html"), "text");
  EXPECT_NO_THROW(ReportFolder(folder_ / "run/private/audit"));  // a second audit
}

TEST_F(ReportFolderTest, RefusesAFolderThatOthersMayEnter) {
  fs::create_directory(folder_ / "open");
  fs::permissions(folder_ / "open", fs::perms(0750));
  EXPECT_THAT(refusal(folder_ / "open"), AllOf(HasSubstr("others may enter"), HasSubstr("chmod")));
  EXPECT_EQ(mode_of(folder_ / "open"), 0750u) << "it is not ours to change";
  put(folder_ / "file");
  EXPECT_THAT(refusal(folder_ / "file"), HasSubstr("is not a folder"));
}

TEST_F(ReportFolderTest, RefusesWhatIsMadeToBeShared) {
  put(folder_ / "corpus/lineage.json");
  put(folder_ / "unfinished/.sampling.json");
  put(folder_ / "by_hand/metadata.csv");
  fs::create_directories(folder_ / "by_hand/images");
  put(folder_ / "run/config.yaml");
  fs::create_directories(folder_ / "run/release");
  put(folder_ / "model/model_index.json");
  for (const char* place : {"corpus", "corpus/audit", "unfinished/a/b", "by_hand/images/audit"})
    EXPECT_THAT(refusal(folder_ / place), HasSubstr("a corpus")) << place;
  for (const char* place : {"run/release", "run/release/audit", "model/unet/audit"})
    EXPECT_THAT(refusal(folder_ / place), HasSubstr("a released model")) << place;
  EXPECT_FALSE(fs::exists(folder_ / "corpus/audit"));
  EXPECT_NO_THROW(ReportFolder(folder_ / "run/private/audit"));
}

TEST_F(ReportFolderTest, FollowsLinksAndDotsBeforeItJudges) {
  put(folder_ / "corpus/lineage.json");
  fs::create_directory_symlink(folder_ / "corpus", folder_ / "harmless");
  EXPECT_THAT(refusal(folder_ / "harmless/audit"), HasSubstr("a corpus"));
  EXPECT_THAT(refusal(folder_ / "other/../corpus/audit"), HasSubstr("a corpus"));
}

TEST_F(ReportFolderTest, RefusesTheInsideOfAStore) {
  put(folder_ / "store/manifest.json");
  put(folder_ / "store/records.bin");
  EXPECT_THAT(refusal(folder_ / "store/audit"), HasSubstr("a record store"));
  EXPECT_NO_THROW(ReportFolder(ReportFolder::usual({}, folder_ / "store", "audit")));
}

TEST_F(ReportFolderTest, UsualPlaces) {
  EXPECT_EQ(ReportFolder::usual("runs/a", "stores/b", "audit"), fs::path("runs/a/private/audit"));
  const fs::path beside = fs::canonical(folder_.path()) / "store-audit";
  EXPECT_EQ(ReportFolder::usual({}, folder_ / "store", "audit"), beside);
  EXPECT_EQ(ReportFolder::usual({}, folder_ / "store/", "audit"), beside);
}

}  // namespace
}  // namespace sfumato
