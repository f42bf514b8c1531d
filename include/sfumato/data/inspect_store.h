#pragma once
#include <filesystem>
#include <string>

namespace sfumato {

/// What is in a record store, for its holder: layout, count, records per class, unit of privacy,
/// how it was prepared; checks every checksum. Never contains the manifest's key. DataError as
/// RecordStore::open and verify_checksums.
std::string describe_store(const std::filesystem::path& path);

}  // namespace sfumato
