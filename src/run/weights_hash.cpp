#include "sfumato/run/weights_hash.h"

#include <algorithm>
#include <vector>

#include "privacy/ledger_line.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/io/safetensors.h"
#include "sfumato/io/weights_file.h"

namespace sfumato {
namespace {

/// Where the networks lie that a run started from, for ledgers that do not note it: of versions
/// that knew these names alone.
std::vector<std::string> folders_of_before(const std::filesystem::path& init) {
  for (const char* network : {"unet", "generator"})
    if (std::filesystem::is_directory(init / network)) {
      if (std::filesystem::is_directory(init / "discriminator")) return {network, "discriminator"};
      return {network};
    }
  return {"."};
}

}  // namespace

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

std::string start_sha256(std::span<const std::string> networks) {
  if (networks.size() == 1) return networks.front();
  std::string hashes;
  for (const std::string& hash : networks) hashes += hash;
  return sha256_hex(hashes);
}

std::string start_sha256(const std::filesystem::path& init,
                         const std::vector<std::string>& folders) {
  std::vector<std::string> hashes;
  for (const std::string& folder : folders.empty() ? folders_of_before(init) : folders)
    hashes.push_back(weights_sha256(init / folder));
  return start_sha256(hashes);
}

std::vector<std::string> start_folders(const std::filesystem::path& init,
                                       std::span<const std::filesystem::path> networks) {
  std::vector<std::string> folders;
  for (const std::filesystem::path& network : networks) {
    const std::string name =
        network.lexically_normal().lexically_relative(init.lexically_normal()).generic_string();
    if (!is_released_name(name)) return {};
    folders.push_back(name);
  }
  return folders;
}

}  // namespace sfumato
