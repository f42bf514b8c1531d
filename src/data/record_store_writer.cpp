#include "sfumato/data/record_store_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"
#include "sfumato/io/buffered_writer.h"
#include "sfumato/io/json_file.h"
#include "store_format.h"

namespace sfumato {
namespace {

constexpr std::size_t kKeyBytes = 32;

std::string random_key() {
  std::string key(kKeyBytes, '\0');
  // Up to 256 bytes getrandom() gives all or fails; it waits until the system's pool is ready.
  if (::getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size()))
    throw DeviceError("the operating system gives no random bytes (getrandom failed)");
  return key;
}

/// A file with its running SHA-256.
struct HashedFile {
  HashedFile(const std::filesystem::path& folder, const char* file_name)
      : name(file_name), file(folder / file_name, 0600) {}
  void write(const void* data, std::size_t size) {
    file.write(data, size);
    hash.update(data, size);
  }
  void commit(nlohmann::json& files) {
    file.commit();
    files[name] = {{"bytes", file.size()}, {"sha256", hex(hash.finish())}};
  }
  const char* name;
  BufferedWriter file;
  Sha256 hash;
};

void require_free_place(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path, error))) return;
  if (std::filesystem::is_directory(path, error) && std::filesystem::is_empty(path, error)) return;
  throw UsageError(
      fmt::format("'{}' exists already; choose another data.store or remove it", path.string()));
}

[[noreturn]] void fail(const std::string& what, const std::filesystem::path& path, int error) {
  throw DataError(fmt::format("{} '{}': {}", what, path.string(), std::strerror(error)));
}

}  // namespace

struct RecordStoreWriter::Files {
  Files(const std::filesystem::path& folder, const StoreLayout& layout)
      : records(folder, store_format::kRecords) {
    if (layout.num_classes > 0) labels.emplace(folder, store_format::kLabels);
    if (layout.has_users) users.emplace(folder, store_format::kUsers);
  }
  HashedFile records;
  std::optional<HashedFile> labels;
  std::optional<HashedFile> users;
};

RecordStoreWriter::RecordStoreWriter(const std::filesystem::path& path, const StoreLayout& layout,
                                     std::string key)
    : path_(std::filesystem::absolute(path).lexically_normal()),
      layout_(layout),
      key_(key.empty() ? random_key() : std::move(key)) {
  if (!path_.has_filename()) path_ = path_.parent_path();  // "store/"
  if (!path_.has_filename())
    throw UsageError(fmt::format("'{}' is no place for a record store", path.string()));
  if (key_.size() != kKeyBytes) throw UsageError("the manifest key must have 32 bytes");
  store_format::check_layout(layout_);
  require_free_place(path_);
  partial_ = path_.parent_path() / fmt::format(".{}.partial", path_.filename().string());
  claim_partial_folder();
  try {
    files_ = std::make_unique<Files>(partial_, layout_);
    const std::string header = store_format::header_page(layout_);
    files_->records.write(header.data(), header.size());
  } catch (...) {
    remove_partial_folder();  // the destructor of a half-built object does not run
    throw;
  }
}

/// Creates the partial folder, or takes over what a killed process left. The lock is what tells a
/// dead owner from a living one; it goes with the process.
void RecordStoreWriter::claim_partial_folder() {
  make_folder(partial_, 0700);
  lock_ = ::open(partial_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) fail("cannot open", partial_, errno);
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(lock_);
    if (error == EWOULDBLOCK)
      throw UsageError(
          fmt::format("another process is writing '{}'; wait for it or choose another "
                      "data.store",
                      path_.string()));
    fail("cannot lock", partial_, error);
  }
  // Between open and lock the former owner may have renamed the folder into place.
  struct stat held {
  }, named{};
  if (::fstat(lock_, &held) != 0 || ::stat(partial_.c_str(), &named) != 0 ||
      held.st_ino != named.st_ino) {
    ::close(lock_);
    throw UsageError(fmt::format("another process has just written '{}'", path_.string()));
  }
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(partial_, ignored))
    std::filesystem::remove_all(entry.path(), ignored);
}

void RecordStoreWriter::remove_partial_folder() {
  files_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(partial_, ignored);
  ::close(lock_);
}

RecordStoreWriter::~RecordStoreWriter() {
  if (!finished_) remove_partial_folder();
}

void RecordStoreWriter::append(std::span<const std::uint8_t> pixels, std::int32_t label,
                               std::int32_t user) {
  const std::int64_t expected = layout_.height * layout_.width * layout_.channels;
  if (std::ssize(pixels) != expected)
    throw DataError(fmt::format("record {} has {} bytes, not {}", count_, pixels.size(), expected));
  if (layout_.num_classes > 0 && (label < 0 || label >= layout_.num_classes))
    throw DataError(fmt::format("record {} has label {}, outside 0..{}", count_, label,
                                layout_.num_classes - 1));
  if (layout_.has_users && user < 0)
    throw DataError(fmt::format("record {} belongs to no user", count_));
  files_->records.write(pixels.data(), pixels.size());
  if (files_->labels) files_->labels->write(&label, sizeof label);
  if (files_->users) files_->users->write(&user, sizeof user);
  ++count_;
}

std::string RecordStoreWriter::finish() { return finish(nlohmann::json::object()); }

std::string RecordStoreWriter::finish(const nlohmann::json& preparation) {
  if (count_ == 0) throw DataError(fmt::format("no image for record store '{}'", path_.string()));
  nlohmann::json files = nlohmann::json::object();
  files_->records.commit(files);
  if (files_->labels) files_->labels->commit(files);
  if (files_->users) files_->users->commit(files);
  nlohmann::json manifest = {
      {"kind", store_format::kKind},
      {"schema_version", store_format::kSchemaVersion},
      {"program", version() + " (" + git_commit() + ")"},
      {"count", count_},
      {"height", layout_.height},
      {"width", layout_.width},
      {"channels", layout_.channels},
      {"num_classes", layout_.num_classes},
      {"class_names", layout_.class_names},
      {"class_names_from", layout_.class_names_from},
      {"classes_that_may_be_empty", layout_.classes_that_may_be_empty},
      {"unit",
       {{"kind", layout_.has_users ? "user" : "image"},
        {"records_per_unit", layout_.records_per_user},
        {"text", unit_of_privacy(layout_.has_users, layout_.records_per_user)}}},
      {"files", files},
      {"preparation", preparation},
      {"key", hex(std::span(reinterpret_cast<const unsigned char*>(key_.data()), key_.size()))},
  };
  const std::string hash = store_format::keyed_hash(manifest);
  manifest["manifest_hash"] = hash;
  write_json_atomic(partial_ / store_format::kManifest, manifest, 2, 0600);
  require_free_place(path_);
  // rename() replaces an empty folder and nothing else, in one step.
  if (::rename(partial_.c_str(), path_.c_str()) != 0) fail("cannot create", path_, errno);
  finished_ = true;
  ::close(lock_);
  files_.reset();
  fsync_path(path_.parent_path());
  return hash;
}

}  // namespace sfumato
