#include "sfumato/generate/weights_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"

namespace sfumato {

std::string weights_sha256(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  if (files.empty())
    throw DataError(fmt::format("'{}' holds no .safetensors file", folder.string()));
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
