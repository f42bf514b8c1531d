#include "sfumato/sweep/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

/// Where process numbers mean the same: one boot of one machine, one namespace.
std::string place_of_processes() {
  std::error_code error;
  std::string boot;
  try {
    boot = read_file("/proc/sys/kernel/random/boot_id");
  } catch (const DataError&) {
    boot = "unknown\n";
  }
  boot.pop_back();
  return boot + " " + fs::read_symlink("/proc/self/ns/pid", error).string();
}

/// The start of this process in ticks since the boot, which no later process of its number has.
std::string start_ticks() {
  const std::string stat = read_file("/proc/self/stat");
  // The name in field 2 may hold anything, also spaces and brackets.
  std::size_t at = stat.rfind(')') + 2;
  for (int field = 3; field < 22; ++field) at = stat.find(' ', at) + 1;
  return stat.substr(at, stat.find(' ', at) - at);
}

fs::path generation(const fs::path& folder, const std::string& name, std::int64_t number) {
  return folder / fmt::format("{}.{}", name, number);
}

fs::path heartbeat_of(const fs::path& lock) { return lock.string() + ".heartbeat"; }

/// The last generation; 0 for none.
std::int64_t last_generation(const fs::path& folder, const std::string& name) {
  std::int64_t last = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with(name + ".")) continue;
    if (const auto number = parse_int64(file.substr(name.size() + 1)))
      last = std::max(last, *number);
  }
  return last;
}

std::string lock_text() {
  return Json{{"host", host_name()},
              {"pid", ::getpid()},
              {"start_ticks", start_ticks()},
              {"place", place_of_processes()},
              {"taken", utc_now()}}
             .dump() +
         "\n";
}

/// What it says; an object without fields where it cannot be read.
Json read_lock(const fs::path& lock) {
  try {
    const Json json = Json::parse(read_file(lock));
    if (json.is_object()) return json;
  } catch (const std::exception&) {
    // A lock that somebody damaged counts as one of another machine.
  }
  return Json::object();
}

double seconds_of(const struct stat& status) {
  return static_cast<double>(status.st_mtim.tv_sec) +
         1e-9 * static_cast<double>(status.st_mtim.tv_nsec);
}

/// Seconds since the last sign of life, by the clock of the file system that holds it: machines
/// disagree about the time.
double silence_s(const fs::path& folder, const fs::path& lock) {
  struct stat now {
  }, beat{};
  const fs::path probe = folder / fmt::format(".{}.now", random_hex(8));
  write_file_atomic(probe, "", 0600);
  const bool known = ::stat(probe.c_str(), &now) == 0;
  std::error_code ignored;
  fs::remove(probe, ignored);
  if (::stat(heartbeat_of(lock).c_str(), &beat) != 0 && ::stat(lock.c_str(), &beat) != 0) return 0;
  return known ? seconds_of(now) - seconds_of(beat) : 0;
}

/// Whether a process of this machine has the file open and locked.
bool is_held(const fs::path& lock) {
  const int fd = ::open(lock.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return true;
  const bool free = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
  ::close(fd);
  return !free;
}

bool is_free(const fs::path& folder, const fs::path& lock, std::chrono::seconds stale_after) {
  const Json json = read_lock(lock);
  if (json.contains("released")) return true;
  if (json.value("place", "") == place_of_processes() && json.value("host", "") == host_name())
    return !is_held(lock);
  return silence_s(folder, lock) > static_cast<double>(stale_after.count());
}

void write_heartbeat(const fs::path& lock) {
  const int fd = ::open(heartbeat_of(lock).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;  // a full disk ends nobody's work: the lock's own time is that of its start
  ::futimens(fd, nullptr);
  ::close(fd);
}

/// Makes the file with its content in one step; false where the name is taken.
bool make_lock(const fs::path& folder, const fs::path& lock, int& fd) {
  const fs::path temporary = folder / fmt::format(".{}.lock", random_hex(8));
  write_file_atomic(temporary, lock_text(), 0600);
  fd = ::open(temporary.c_str(), O_RDWR | O_CLOEXEC);
  // Before it has its name: who sees it finds it held.
  const bool made = fd >= 0 && ::flock(fd, LOCK_EX | LOCK_NB) == 0 &&
                    ::link(temporary.c_str(), lock.c_str()) == 0;
  const int reason = errno;
  std::error_code ignored;
  fs::remove(temporary, ignored);
  if (made) return true;
  if (fd >= 0) ::close(fd);
  if (reason == EEXIST) return false;
  throw DataError(
      fmt::format("'{}' cannot be made ({}); keep sweeps on a file system that has "
                  "flock and links",
                  lock.string(), std::strerror(reason)));
}

}  // namespace

std::optional<RunLock> RunLock::take(const fs::path& folder, const std::string& name,
                                     std::chrono::seconds stale_after) {
  const std::int64_t last = last_generation(folder, name);
  if (last > 0 && !is_free(folder, generation(folder, name, last), stale_after))
    return std::nullopt;
  const fs::path lock = generation(folder, name, last + 1);
  int fd = -1;
  if (!make_lock(folder, lock, fd)) return std::nullopt;
  write_heartbeat(lock);
  return RunLock(lock, generation(folder, name, last + 2), fd);
}

std::string RunLock::holder(const fs::path& folder, const std::string& name,
                            std::chrono::seconds stale_after) {
  if (!fs::is_directory(folder)) return {};
  const std::int64_t last = last_generation(folder, name);
  const fs::path lock = generation(folder, name, last);
  if (last == 0 || is_free(folder, lock, stale_after)) return {};
  const Json json = read_lock(lock);
  return printable(fmt::format("{}, process {}, since {}", json.value("host", "?"),
                               json.value("pid", 0), json.value("taken", "?")));
}

RunLock::RunLock(RunLock&& other) noexcept
    : file_(std::move(other.file_)),
      next_(std::move(other.next_)),
      fd_(std::exchange(other.fd_, -1)) {}

RunLock::~RunLock() {
  if (fd_ < 0) return;
  try {
    Json json = read_lock(file_);
    json["released"] = utc_now();
    if (!fs::exists(next_)) write_file_atomic(file_, json.dump() + "\n", 0600);
  } catch (const std::exception&) {
    // A full disk: the end of this process releases it as well.
  }
  ::close(fd_);
}

bool RunLock::beat() {
  write_heartbeat(file_);
  return !fs::exists(next_);
}

}  // namespace sfumato
