// What a machine that loses power would still hold: only what was flushed. The test program's own
// fsync notes how much of each file was.
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <map>

#include "ledger_support.h"
#include "sfumato/privacy/mechanism.h"

namespace {

/// Size of every file at its last flush, by inode.
std::map<ino_t, off_t>& flushed() {
  static std::map<ino_t, off_t> sizes;
  return sizes;
}

}  // namespace

// Comes before the C library's when the program is linked.
extern "C" int fsync(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) == 0) flushed()[info.st_ino] = info.st_size;
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

namespace sfumato {
namespace {

using test::TempFolder;

off_t flushed_bytes(const std::filesystem::path& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  const auto found = flushed().find(info.st_ino);
  return found == flushed().end() ? -1 : found->second;
}

TEST(LedgerSync, EveryChargeIsSyncedBeforeTheTokenExists) {
  TempFolder folder;
  const auto path = folder / "l";
  const auto is_safe = [&] {
    return flushed_bytes(path) == static_cast<off_t>(std::filesystem::file_size(path));
  };
  nlohmann::ordered_json plan = test::small_plan();
  plan["stages"] = {{{"name", "images"}, {"declared", false}, {"count", 2}}};
  {
    const SecureKey key = SecureKey::generate();
    Ledger ledger = Ledger::create(path, plan, 10, key);
    EXPECT_TRUE(is_safe()) << "the mechanism";
    EXPECT_GE(flushed_bytes(folder.path()), 0) << "the name in its folder";
    for (std::int64_t step = 0; step < 3; ++step) {
      const ChargedStep charge = ledger.charge(step, key);
      EXPECT_TRUE(is_safe()) << step;
    }
    const ChargedStep stage = ledger.charge_stage("images", key);
    EXPECT_TRUE(is_safe()) << "a stage";
  }
  AppendFile(path).append("{\"line\":");
  Ledger ledger = Ledger::open(path);
  EXPECT_TRUE(is_safe()) << "a torn line, counted";
  ledger.resume(SecureKey::generate());
  EXPECT_TRUE(is_safe()) << "the key of a session";
}

}  // namespace
}  // namespace sfumato
