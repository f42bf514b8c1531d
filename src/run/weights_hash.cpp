#include "sfumato/run/weights_hash.h"

#include <algorithm>
#include <vector>

#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/io/safetensors.h"
#include "sfumato/io/weights_file.h"

namespace sfumato {

std::string weights_sha256(const std::filesystem::path& folder) {
  // Those that are loaded: a second variant beside them must not make the same weights look new.
  const std::filesystem::path weights = find_weights(folder);
  std::vector<std::filesystem::path> files{weights};
  if (weights.extension() == ".json") files = SafetensorsSet(weights).files();
  std::sort(files.begin(), files.end());
  std::string hashes;
  for (const auto& path : files) {
    const MappedFile file(path);
    Sha256 hash;
    hash.update(file.bytes().data(), file.bytes().size());
    const auto digest = hash.finish();
    hashes += hex(digest);
  }
  return files.size() == 1 ? hashes : sha256_hex(hashes);
}

std::string start_sha256(const std::string& weights, const std::string& discriminator) {
  return discriminator.empty() ? weights : sha256_hex(weights + discriminator);
}

std::string start_sha256(const std::filesystem::path& init) {
  const std::filesystem::path other = init / "discriminator";
  for (const char* network : {"unet", "generator"})
    if (std::filesystem::is_directory(init / network))
      return start_sha256(weights_sha256(init / network), std::filesystem::is_directory(other)
                                                              ? weights_sha256(other)
                                                              : std::string());
  return weights_sha256(init);
}

}  // namespace sfumato
