#pragma once
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "sfumato/data/record_store.h"

// What reader and writer of a record store must agree on.
namespace sfumato::store_format {

inline constexpr int kSchemaVersion = 1;
inline constexpr std::int64_t kHeaderBytes = 4096;  // one page, so that records start aligned
inline constexpr const char* kKind = "sfumato record store";
inline constexpr const char* kRecords = "records.bin";
inline constexpr const char* kLabels = "labels.bin";
inline constexpr const char* kUsers = "users.bin";
inline constexpr const char* kManifest = "manifest.json";

/// "SFUMATO RECORDS\n", then uint32 little-endian version, height, width, channels; zeros.
std::string header_page(const StoreLayout& layout);

/// UsageError if no store can have it.
void check_layout(const StoreLayout& layout);

/// HMAC under manifest["key"] of the manifest without "manifest_hash".
std::string keyed_hash(nlohmann::json manifest);

}  // namespace sfumato::store_format
