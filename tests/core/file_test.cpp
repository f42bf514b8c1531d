#include "sfumato/core/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "sfumato/core/error.h"
#include "support/error_message.h"
#include "support/file_size_limit.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using test::error_message;
using test::FileSizeLimit;
using test::TempFolder;
using ::testing::HasSubstr;

unsigned mode_of(const std::filesystem::path& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_mode & 0777;
}

int files_in(const std::filesystem::path& folder) {
  const std::filesystem::directory_iterator entries(folder);
  return static_cast<int>(std::distance(begin(entries), end(entries)));
}

TEST(ReadFile, ReturnsEveryByte) {
  const TempFolder folder;
  std::string bytes(200000, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  std::ofstream(folder / "data", std::ios::binary) << bytes;
  EXPECT_EQ(read_file(folder / "data"), bytes);
}

TEST(ReadFile, NamesWhatItCannotRead) {
  const TempFolder folder;
  EXPECT_THAT(error_message<DataError>([&] { read_file(folder / "none"); }),
              HasSubstr((folder / "none").string()));
  EXPECT_THAT(error_message<DataError>([&] { read_file(folder.path()); }),
              HasSubstr(folder.path().string()));
}

TEST(WriteFileAtomic, ReplacesTheFileAndLeavesNothingElse) {
  const TempFolder folder;
  write_file_atomic(folder / "a.json", "old");
  write_file_atomic(folder / "a.json", "new and longer");
  EXPECT_EQ(read_file(folder / "a.json"), "new and longer");
  EXPECT_EQ(files_in(folder.path()), 1);
}

TEST(WriteFileAtomic, GivesTheModeThatWasAskedFor) {
  const TempFolder folder;
  write_file_atomic(folder / "private", "x", 0600);
  EXPECT_EQ(mode_of(folder / "private"), 0600u);
  write_file_atomic(folder / "public", "x");
  EXPECT_EQ(mode_of(folder / "public") & 0600u, 0600u);
}

TEST(WriteFileAtomic, AFullDiskLeavesTheOldFile) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "old");
  {
    const FileSizeLimit limit(1000);
    EXPECT_THAT(
        error_message<DataError>([&] { write_file_atomic(folder / "a", std::string(5000, 'x')); }),
        HasSubstr((folder / "a").string()));
  }
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(files_in(folder.path()), 1) << "the temporary file was left behind";
}

TEST(WriteFileAtomic, NamesAFolderThatIsMissing) {
  const TempFolder folder;
  EXPECT_THAT(error_message<DataError>([&] { write_file_atomic(folder / "no/such/file", "x"); }),
              HasSubstr("no/such/file"));
}

TEST(MakeFolder, MakesParentsAndSetsTheModeOfTheLast) {
  const TempFolder folder;
  make_folder(folder / "a/b/private", 0700);
  EXPECT_EQ(mode_of(folder / "a/b/private"), 0700u);
  EXPECT_EQ(mode_of(folder / "a/b") & 0700u, 0700u);
  make_folder(folder / "a/b/private", 0700);  // a second time does nothing
}

TEST(MakeFolder, TakesABareName) {
  const TempFolder folder;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  EXPECT_NO_THROW(make_folder("plain"));
  std::filesystem::current_path(before);
  EXPECT_TRUE(std::filesystem::is_directory(folder / "plain"));
}

TEST(MakeFolder, RefusesAFileInItsPlace) {
  const TempFolder folder;
  write_file_atomic(folder / "file", "x");
  EXPECT_THAT(error_message<DataError>([&] { make_folder(folder / "file"); }), HasSubstr("file"));
  EXPECT_THAT(error_message<DataError>([&] { make_folder(folder / "file/below"); }),
              HasSubstr("file"));
}

TEST(FsyncPath, TakesFilesAndFoldersAndNamesTheMissing) {
  const TempFolder folder;
  write_file_atomic(folder / "file", "x");
  fsync_path(folder / "file");
  fsync_path(folder.path());
  EXPECT_THAT(error_message<DataError>([&] { fsync_path(folder / "none"); }), HasSubstr("none"));
}

TEST(AppendFile, AppendsToWhatIsThere) {
  const TempFolder folder;
  { AppendFile(folder / "log", 0600).append("one\n"); }
  AppendFile file(folder / "log");
  file.append("two\n");
  file.append("three\n");
  EXPECT_EQ(read_file(folder / "log"), "one\ntwo\nthree\n");
  EXPECT_EQ(mode_of(folder / "log"), 0600u);
}

TEST(AppendFile, AFullDiskLeavesNoHalfLine) {
  const TempFolder folder;
  AppendFile file(folder / "log");
  file.append("whole line\n");
  {
    const FileSizeLimit limit(20);  // the next line gets nine bytes in
    EXPECT_THAT(error_message<DataError>([&] { file.append("a line that does not fit\n"); }),
                HasSubstr("log"));
  }
  EXPECT_EQ(read_file(folder / "log"), "whole line\n");
  file.append("next\n");
  EXPECT_EQ(read_file(folder / "log"), "whole line\nnext\n");
}

std::string text_of(const MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(MappedFile, MapsContentsAndEmptyFiles) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "abc");
  write_file_atomic(folder / "empty", "");
  EXPECT_EQ(text_of(MappedFile(folder / "a")), "abc");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST(MappedFile, MovesWithoutLosingTheMap) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "abc");
  write_file_atomic(folder / "b", "defg");
  MappedFile a(folder / "a");
  MappedFile moved(std::move(a));
  EXPECT_EQ(text_of(moved), "abc");
  MappedFile b(folder / "b");
  b = std::move(moved);
  EXPECT_EQ(text_of(b), "abc");
  EXPECT_EQ(b.path(), folder / "a");
}

TEST(MappedFile, RefusesWhatIsNoRegularFile) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  for (const std::filesystem::path& path :
       {folder.path(), folder / "pipe", folder / "none", std::filesystem::path("/dev/null")})
    EXPECT_THAT(error_message<DataError>([&] { MappedFile{path}; }), HasSubstr(path.string()));
}

/// What must be refused at once, where reading it would wait or never end.
class NoRegularFile : public ::testing::Test {
 protected:
  NoRegularFile() {
    EXPECT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
    std::filesystem::create_symlink(folder_ / "pipe", folder_ / "link");
    socket_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s", (folder_ / "socket").c_str());
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~NoRegularFile() override { ::close(socket_); }

  const std::vector<std::pair<std::filesystem::path, std::string>>& cases() const { return cases_; }

  TempFolder folder_;
  int socket_ = -1;
  std::vector<std::pair<std::filesystem::path, std::string>> cases_ = {
      {folder_ / "pipe", "it is a pipe"},
      {folder_ / "link", "it is a pipe"},
      {folder_ / "socket", "it is a socket"},
      {folder_.path(), "it is a folder"},
      {"/dev/zero", "it is a device"}};
};

TEST_F(NoRegularFile, IsRefusedByEveryReader) {
  for (const auto& [path, kind] : cases()) {
    for (const std::string& message :
         {error_message<DataError>([&] { read_file(path); }),
          error_message<DataError>([&] { MappedFile{path}; }),
          error_message<DataError>([&] { open_regular_file(path); }),
          error_message<DataError>([&] { check_regular_file(path); })}) {
      EXPECT_THAT(message, HasSubstr(kind));
      EXPECT_THAT(message, HasSubstr(path.string()));
    }
  }
  EXPECT_THAT(error_message<DataError>([&] { read_file(folder_ / "none"); }),
              HasSubstr("No such file"));
}

TEST_F(NoRegularFile, ALinkToAFileIsAFile) {
  write_file_atomic(folder_ / "a", "abc");
  std::filesystem::create_symlink(folder_ / "a", folder_ / "to_a");
  EXPECT_EQ(read_file(folder_ / "to_a"), "abc");
}

}  // namespace
}  // namespace sfumato
