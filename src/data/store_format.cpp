#include "store_format.h"

#include <fmt/format.h>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/io/image_codec.h"

namespace sfumato::store_format {

std::string header_page(const StoreLayout& layout) {
  std::string page = "SFUMATO RECORDS\n";
  for (const std::int64_t value :
       {std::int64_t{kSchemaVersion}, layout.height, layout.width, layout.channels})
    for (int shift = 0; shift < 32; shift += 8)
      page.push_back(static_cast<char>(value >> shift & 0xFF));
  page.resize(kHeaderBytes, '\0');
  return page;
}

void check_layout(const StoreLayout& layout) {
  if (layout.height <= 0 || layout.width <= 0 || layout.height > kMaxImagePixels / layout.width)
    throw UsageError(
        fmt::format("records of {}x{} pixels are not possible", layout.width, layout.height));
  if (layout.channels != 1 && layout.channels != 3)
    throw UsageError(fmt::format("records have 1 or 3 channels, not {}", layout.channels));
  if (layout.num_classes < 0 || layout.num_classes != std::ssize(layout.class_names))
    throw UsageError(fmt::format("{} classes with {} class names", layout.num_classes,
                                 layout.class_names.size()));
  if (layout.records_per_user < 1 || (!layout.has_users && layout.records_per_user != 1))
    throw UsageError(fmt::format("at most {} records per {}", layout.records_per_user,
                                 layout.has_users ? "user" : "image"));
}

std::string keyed_hash(nlohmann::json manifest) {
  const std::string key = manifest.at("key").get<std::string>();
  manifest.erase("manifest_hash");
  manifest.erase("key");
  return hmac_sha256_hex(key, manifest.dump());
}

}  // namespace sfumato::store_format
