#include "sfumato/data/store_manifest.h"

#include <nlohmann/json.hpp>

#include "sfumato/io/json_file.h"
#include "store_format.h"

namespace sfumato {

namespace fs = std::filesystem;

bool is_record_store(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / store_format::kManifest, ignored) &&
         fs::exists(folder / store_format::kRecords, ignored);
}

nlohmann::json store_manifest(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder / store_format::kManifest, ignored)) return nullptr;
  nlohmann::json manifest = read_json(folder / store_format::kManifest);
  return manifest.is_object() ? manifest : nlohmann::json();
}

nlohmann::json store_preparation(const fs::path& folder) {
  const nlohmann::json manifest = store_manifest(folder);
  return manifest.is_null() ? manifest : manifest.value("preparation", nlohmann::json());
}

}  // namespace sfumato
