#include "sfumato/data/record_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"
#include "store_format.h"

namespace sfumato {
namespace {

// Integers are mapped, not converted.
static_assert(std::endian::native == std::endian::little);

nlohmann::json read_manifest(const std::filesystem::path& path) {
  const auto file = path / store_format::kManifest;
  std::error_code error;
  if (!std::filesystem::exists(file, error))
    throw DataError(
        fmt::format("'{}' is not a record store (it has no {}); make one with "
                    "`sfumato prepare --config FILE`, or set data.store",
                    path.string(), store_format::kManifest));
  nlohmann::json manifest = read_json(file);
  if (!manifest.is_object() || manifest.value("kind", nlohmann::json()) != store_format::kKind)
    throw DataError(fmt::format("'{}' is not the manifest of a record store", file.string()));
  if (manifest.value("schema_version", nlohmann::json()) != store_format::kSchemaVersion)
    throw DataError(
        fmt::format("record store '{}' has schema version {}, this program reads {}; "
                    "prepare it again",
                    path.string(), manifest.value("schema_version", nlohmann::json()).dump(),
                    store_format::kSchemaVersion));
  if (store_format::keyed_hash(manifest) != manifest.at("manifest_hash").get<std::string>())
    throw DataError(
        fmt::format("'{}' is damaged or was edited: its keyed hash does not match; "
                    "prepare the store again",
                    file.string()));
  return manifest;
}

StoreLayout read_layout(const nlohmann::json& manifest) {
  StoreLayout layout;
  layout.height = manifest.at("height").get<std::int64_t>();
  layout.width = manifest.at("width").get<std::int64_t>();
  layout.channels = manifest.at("channels").get<std::int64_t>();
  layout.num_classes = manifest.at("num_classes").get<std::int64_t>();
  layout.class_names = manifest.at("class_names").get<std::vector<std::string>>();
  // Before names were literals they were those of the folders.
  const bool numbers = std::ranges::all_of(layout.class_names, [&, label = 0](auto& name) mutable {
    return name == std::to_string(label++);
  });
  layout.class_names_from =
      manifest.value("class_names_from", std::string(numbers ? "numbers" : "source"));
  layout.classes_that_may_be_empty =
      manifest.value("classes_that_may_be_empty", std::vector<std::string>());
  layout.has_users = manifest.at("unit").at("kind").get<std::string>() == "user";
  layout.records_per_user = manifest.at("unit").at("records_per_unit").get<std::int64_t>();
  return layout;
}

MappedFile map_sized(const std::filesystem::path& path, std::int64_t expected) {
  MappedFile file(path);
  if (std::ssize(file.bytes()) != expected)
    throw DataError(fmt::format("'{}' has {} bytes, its store needs {}; prepare the store again",
                                path.string(), file.bytes().size(), expected));
  return file;
}

}  // namespace

std::string unit_of_privacy(bool has_users, std::int64_t records_per_user) {
  if (!has_users) return "one image";
  return fmt::format("one user, at most {} image{}", records_per_user,
                     records_per_user == 1 ? "" : "s");
}

RecordStore RecordStore::open(const std::filesystem::path& path) {
  RecordStore store;
  store.path_ = path;
  try {
    const nlohmann::json manifest = read_manifest(path);
    store.layout_ = read_layout(manifest);
    store_format::check_layout(store.layout_);
    store.count_ = manifest.at("count").get<std::int64_t>();
    store.manifest_hash_ = manifest.at("manifest_hash").get<std::string>();
    store.record_bytes_ = store.height() * store.width() * store.channels();
    std::int64_t total = 0;
    if (store.count_ < 1 || __builtin_mul_overflow(store.count_, store.record_bytes_ + 4, &total))
      throw DataError(
          fmt::format("record store '{}' states {} records", path.string(), store.count_));
    const auto& files = manifest.at("files");
    const auto keep = [&](const char* name, std::int64_t bytes) {
      store.files_.push_back(map_sized(path / name, bytes));
      store.checksums_.push_back(files.at(name).at("sha256").get<std::string>());
      return store.files_.back().bytes().data();
    };
    const auto* records = keep(store_format::kRecords,
                               store_format::kHeaderBytes + store.count_ * store.record_bytes_);
    store.records_ = reinterpret_cast<const std::uint8_t*>(records) + store_format::kHeaderBytes;
    if (store.num_classes() > 0)
      store.labels_ =
          reinterpret_cast<const std::int32_t*>(keep(store_format::kLabels, 4 * store.count_));
    if (store.layout_.has_users)
      store.users_ =
          reinterpret_cast<const std::int32_t*>(keep(store_format::kUsers, 4 * store.count_));
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("'{}' is damaged: {}", (path / store_format::kManifest).string(),
                                error.what()));
  } catch (const UsageError& error) {
    throw DataError(fmt::format("record store '{}' is damaged: {}", path.string(), error.what()));
  }
  store.check_contents();
  return store;
}

/// Cheap checks of what would otherwise go wrong far away: the header page and the labels.
void RecordStore::check_contents() const {
  const std::string expected = store_format::header_page(layout_);
  if (std::memcmp(records_ - store_format::kHeaderBytes, expected.data(), expected.size()) != 0)
    throw DataError(fmt::format("the header of '{}' does not belong to its manifest",
                                (path_ / store_format::kRecords).string()));
  for (std::int64_t i = 0; labels_ != nullptr && i < count_; ++i)
    if (labels_[i] < 0 || labels_[i] >= num_classes())
      throw DataError(fmt::format("'{}' is damaged: record {} has label {} of {} classes",
                                  (path_ / store_format::kLabels).string(), i, labels_[i],
                                  num_classes()));
}

void RecordStore::verify_checksums() const {
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const auto bytes = files_[i].bytes();
    constexpr std::size_t kAtATime = std::size_t{64} << 20;
    Sha256 hash;
    for (std::size_t at = 0; at < bytes.size(); at += kAtATime) {
      if (at > 0 && stop_requested())
        throw Interrupted("stopped while a record store was read; nothing was begun");
      hash.update(bytes.data() + at, std::min(kAtATime, bytes.size() - at));
    }
    const std::string actual = hex(hash.finish());
    if (actual != checksums_[i])
      throw DataError(
          fmt::format("'{}' is damaged: its SHA-256 is {}, the manifest says {}; "
                      "prepare the store again",
                      files_[i].path().string(), actual, checksums_[i]));
  }
}

std::span<const std::uint8_t> RecordStore::pixels(std::int64_t i) const {
  if (i < 0 || i >= count_)
    throw DataError(
        fmt::format("record {} of '{}' asked for; it has {}", i, path_.string(), count_));
  return {records_ + i * record_bytes_, static_cast<std::size_t>(record_bytes_)};
}

std::int32_t RecordStore::label(std::int64_t i) const {
  pixels(i);  // checks the index
  return labels_ == nullptr ? 0 : labels_[i];
}

std::int32_t RecordStore::user(std::int64_t i) const {
  pixels(i);
  return users_ == nullptr ? -1 : users_[i];
}

std::string RecordStore::unit() const {
  return unit_of_privacy(layout_.has_users, layout_.records_per_user);
}

}  // namespace sfumato
