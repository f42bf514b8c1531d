#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace sfumato {

/// Whether a folder holds a record store, whole or not.
bool is_record_store(const std::filesystem::path& folder);

/// What stands in the manifest of a folder, unchecked: whoever reads records opens a RecordStore.
/// Null where there is none, or one that is no object. DataError for one that cannot be read.
nlohmann::json store_manifest(const std::filesystem::path& folder);
/// Its "preparation": how the store was made, also as a part or a holdout of another. Null
/// likewise.
nlohmann::json store_preparation(const std::filesystem::path& folder);

}  // namespace sfumato
