#include "sfumato/run/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;

unsigned mode_of(const std::filesystem::path& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 0777;
}

TEST(RunDirectory, PartsWhatMayLeaveFromWhatMayNot) {
  const TempFolder folder;
  const RunDirectory run = RunDirectory::create(folder / "runs/one");
  EXPECT_EQ(mode_of(run.private_folder()), 0700u);
  EXPECT_EQ(mode_of(run.checkpoints()), 0700u);
  EXPECT_EQ(run.checkpoints().parent_path(), run.private_folder());
  EXPECT_EQ(run.config(), folder / "runs/one/config.yaml");
  EXPECT_EQ(run.ledger(), folder / "runs/one/ledger.jsonl");
  EXPECT_EQ(run.release(), folder / "runs/one/release");
}

TEST(RunDirectory, ANewRunTakesAnEmptyFolderOrOneWithoutFiles) {
  const TempFolder folder;
  make_folder(folder / "empty");
  RunDirectory::create(folder / "empty");
  // The same again: a start that was refused after it had made its folders.
  RunDirectory::create(folder / "empty");
}

TEST(RunDirectory, ANewRunRefusesAFolderWithAnyFile) {
  const TempFolder folder;
  for (const char* file : {"config.yaml", "private/metrics.jsonl", "notes.txt"}) {
    const std::filesystem::path path = folder / (std::string("with_") + file);
    make_folder((path / file).parent_path());
    write_file_atomic(path / file, "x");
    EXPECT_THAT(error_message<UsageError>([&] { RunDirectory::create(path); }),
                AllOf(HasSubstr(path.string()), HasSubstr("--resume"), HasSubstr("run.dir")));
  }
  write_file_atomic(folder / "file", "x");
  EXPECT_THROW(RunDirectory::create(folder / "file"), UsageError);
}

TEST(RunDirectory, IsTakenBackWhereAStartWasRefused) {
  const TempFolder folder;
  const std::filesystem::path path = folder / "run";
  const RunDirectory chosen = RunDirectory::choose(path);
  EXPECT_FALSE(std::filesystem::exists(path)) << "nothing is made before it is created";
  const RunDirectory created = RunDirectory::create(path);
  write_file_atomic(created.config(), "");
  created.withdraw();
  EXPECT_FALSE(std::filesystem::exists(path));
  for (const char* file : {"ledger.jsonl", "notes.txt", "private/metrics.jsonl"}) {
    const RunDirectory run = RunDirectory::create(path);
    write_file_atomic(path / file, "x");
    write_file_atomic(run.config(), "");
    run.withdraw();
    EXPECT_EQ(std::filesystem::exists(run.config()), file == std::string("ledger.jsonl"));
    EXPECT_TRUE(std::filesystem::exists(path / file)) << file;
    std::filesystem::remove_all(path);
  }
}

TEST(RunDirectory, TakesBackItsOwnFoldersAndNoOthers) {
  const TempFolder folder;
  namespace fs = std::filesystem;
  const auto start_and_withdraw = [](const fs::path& path) {
    const RunDirectory run = RunDirectory::create(path);
    write_file_atomic(run.config(), "");
    run.withdraw();
  };
  start_and_withdraw(folder / "new/runs/one");
  EXPECT_FALSE(fs::exists(folder / "new")) << "parents that it made";
  make_folder(folder / "users/empty");
  start_and_withdraw(folder / "users/empty");
  EXPECT_TRUE(fs::is_empty(folder / "users/empty"));
  start_and_withdraw(folder / "users/one");
  EXPECT_TRUE(fs::exists(folder / "users"));
  make_folder(folder / "again/private");
  start_and_withdraw(folder / "again");
  EXPECT_TRUE(fs::is_empty(folder / "again/private"));
  const RunDirectory chosen = RunDirectory::choose(folder / "again");
  write_file_atomic(chosen.config(), "");
  chosen.withdraw();
  EXPECT_TRUE(fs::exists(chosen.config())) << "of another start";
}

TEST(RunDirectory, TheCommandThatResumesNamesTheFolderItself) {
  EXPECT_EQ(resume_command("runs/a"),
            "`sfumato train --config runs/a/config.yaml --resume run.dir=runs/a`");
  EXPECT_EQ(resume_command(""), "`sfumato train --config ./config.yaml --resume run.dir=.`");
  EXPECT_EQ(resume_command("my runs/ann's"),
            "`sfumato train --config 'my runs/ann'\\''s/config.yaml' --resume "
            "'run.dir=my runs/ann'\\''s'`");
}

TEST(RunDirectory, OpenNeedsARun) {
  const TempFolder folder;
  EXPECT_THAT(error_message<UsageError>([&] { RunDirectory::open(folder / "none"); }),
              HasSubstr("without --resume"));
  EXPECT_FALSE(std::filesystem::exists(folder / "none"));
  RunDirectory::create(folder / "run");
  EXPECT_THROW(RunDirectory::open(folder / "run"), UsageError) << "it never got to its config";
  write_file_atomic(folder / "run/config.yaml", "");
  EXPECT_EQ(RunDirectory::open(folder / "run").path(), folder / "run");
}

TEST(RunDirectory, HoldsARunFromItsConfigurationOn) {
  const TempFolder folder;
  const std::filesystem::path path = folder / "run";
  EXPECT_FALSE(RunDirectory::holds_run(path));
  RunDirectory::create(path);
  EXPECT_FALSE(RunDirectory::holds_run(path)) << "a start that was refused: it starts anew";
  write_file_atomic(path / "config.yaml", "");
  EXPECT_TRUE(RunDirectory::holds_run(path));
  EXPECT_THROW(RunDirectory::create(path), UsageError);
}

}  // namespace
}  // namespace sfumato
