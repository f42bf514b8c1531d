#pragma once
#include <filesystem>
#include <string>

namespace sfumato {

/// SHA-256 of the safetensors file that find_weights takes in a model folder (the one that holds
/// config.json), which ties a privacy card to its weights; of shards, the SHA-256 of their hashes
/// in the order of their names. DataError if there is none.
std::string weights_sha256(const std::filesystem::path& folder);

}  // namespace sfumato
