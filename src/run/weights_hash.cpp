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

}  // namespace sfumato
