#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "sfumato/data/record_store.h"

namespace sfumato {

/// Writes a record store, streaming, all or nothing: into `.NAME.partial` beside the store, renamed
/// at the end. A failure (disk full, an exception, Ctrl-C) removes the partial folder; what a
/// killed process left is removed by the next writer of the same store.
class RecordStoreWriter {
 public:
  /// `key` (32 bytes) keys the manifest hash; empty draws one from the operating system.
  /// UsageError: `path` exists and is not an empty folder, or another process is writing it, or an
  /// impossible layout. DataError: the place cannot be written.
  RecordStoreWriter(const std::filesystem::path& path, const StoreLayout& layout,
                    std::string key = {});
  ~RecordStoreWriter();
  RecordStoreWriter(const RecordStoreWriter&) = delete;
  RecordStoreWriter& operator=(const RecordStoreWriter&) = delete;

  /// Appends one record: uint8 [height, width, channels]; the label is ignored by an unconditional
  /// store and the user by a store without users.
  void append(std::span<const std::uint8_t> pixels, std::int32_t label, std::int32_t user = -1);

  /// Puts the store in place, durably. `preparation` (options and counts) is kept in the manifest.
  /// Returns the manifest hash. DataError if there is no record.
  std::string finish(const nlohmann::json& preparation);
  /// The same without notes on the preparation.
  std::string finish();

  /// Records appended so far.
  std::int64_t count() const { return count_; }
  /// The manifest's key, 32 bytes: secret.
  const std::string& key() const { return key_; }

 private:
  struct Files;
  void claim_partial_folder();
  void remove_partial_folder();

  std::filesystem::path path_;
  std::filesystem::path partial_;
  StoreLayout layout_;
  std::string key_;
  std::int64_t count_ = 0;
  int lock_ = -1;
  bool finished_ = false;
  std::unique_ptr<Files> files_;
};

}  // namespace sfumato
